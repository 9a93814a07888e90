//! What consumers tell each other through the coordinator: subscriptions and assignments of every version, and the
//! topics that the coordinator looks for in the former.
//!
//! Input: which of the two (its lowest bit), then the bytes with their own version. Promise: what is read is written
//! in every version that can say it and read again the same; where a subscription is read, so are its topics.

use milena_server::group::subscription::subscribed_topics;
use milena_server::protocol::Writer;
use milena_server::protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};

use crate::{take, walk};

pub(crate) fn read(mut data: &[u8]) {
    if take(&mut data) & 1 == 0 {
        ConsumerProtocolSubscription::decode(data)
            .iter()
            .for_each(|value| walk(value));
    } else {
        ConsumerProtocolAssignment::decode(data)
            .iter()
            .for_each(|value| walk(value));
    }
}

pub(crate) fn read_again(mut data: &[u8]) {
    macro_rules! again {
        ($message:ident) => {
            let Ok(value) = $message::decode(data) else {
                return;
            };
            let mut writer = Writer::new();
            // a text that is not UTF-8 grows when it is read, and may then be too long to be written
            if value.encode(&mut writer, 1).is_ok() {
                let again = $message::decode(writer.as_slice()).expect("what was written can be read");
                assert_eq!(again, value);
            }
        };
    }
    if take(&mut data) & 1 == 0 {
        again!(ConsumerProtocolSubscription);
    } else {
        again!(ConsumerProtocolAssignment);
    }
}

pub(crate) fn topics(mut data: &[u8]) {
    if take(&mut data) & 1 != 0 {
        return;
    }
    let topics = subscribed_topics(data);
    if let Ok(subscription) = ConsumerProtocolSubscription::decode(data) {
        let topics = topics.expect("the topics of a subscription that is read");
        assert!(topics.iter().map(|topic| &**topic).eq(subscription.topics.iter()));
    }
}

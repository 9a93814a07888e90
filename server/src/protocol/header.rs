//! The header of every frame: which API in which version, and which question an answer belongs to.
//!
//! A request header is read before anything is known about its sender, so it is the first place where forged
//! bytes arrive: nothing is allocated here, and the tagged fields of version 2 are passed over. Header
//! versions: 0 without a client id (only `ControlledShutdown` v0), 1 with it, 2 with tagged fields; the
//! client id keeps its two-byte length in all of them. A response header is the correlation id, in version 1
//! followed by (no) tagged fields.
//!
//! **Deviation:** the tags of a header have to ascend, as those of a body; 2.7.2 looks at the latter only.
//!
//! Sources: `RequestHeader.json`, `ResponseHeader.json`, `RequestHeader.java`, `RequestContext.java`.

use std::borrow::Cow;

use super::api_key::ApiKey;
use super::primitives::{DecodeError, EncodeError, Reader, Writer};
use super::supported_versions;

/// What stands before the body of a request. The frame's length has been taken off already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHeader<'a> {
    pub api_key: ApiKey,
    /// A version that is served, except that an `ApiVersions` request may have any:
    /// see [`RequestHeader::is_unsupported_api_versions`].
    pub api_version: i16,
    /// Chosen by the client, returned in the answer.
    pub correlation_id: i32,
    /// What the client calls itself, for quotas and logs; not authenticated.
    pub client_id: Option<Cow<'a, str>>,
}

/// Why there is no answering this request: Kafka closes the connection without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    #[error("unknown api key {api_key}")]
    UnknownApiKey { api_key: i16 },
    #[error("{api_key} ({}) is not served", api_key.id())]
    NotServed { api_key: ApiKey },
    #[error("{api_key} ({}) version {api_version} is not served", api_key.id())]
    UnsupportedVersion { api_key: ApiKey, api_version: i16 },
}

impl<'a> RequestHeader<'a> {
    /// Reads the header; the reader then stands at the body.
    ///
    /// # Errors
    /// [`HeaderError`]; none of them can be answered.
    pub fn decode(reader: &mut Reader<'a>) -> Result<RequestHeader<'a>, HeaderError> {
        let within = |field| move |e: DecodeError| e.within("RequestHeader", field);
        let id = reader.i16().map_err(within("request_api_key"))?;
        let api_version = reader.i16().map_err(within("request_api_version"))?;
        let api_key = ApiKey::from_id(id).ok_or(HeaderError::UnknownApiKey { api_key: id })?;
        let versions = supported_versions(api_key).ok_or(HeaderError::NotServed { api_key })?;
        if !versions.contains(&api_version) && api_key != ApiKey::ApiVersions {
            return Err(HeaderError::UnsupportedVersion { api_key, api_version });
        }
        let header_version = api_key.request_header_version(api_version);
        let correlation_id = reader.i32().map_err(within("correlation_id"))?;
        let client_id = match header_version {
            // As Kafka's, which begins with an empty one.
            0 => Some(Cow::Borrowed("")),
            _ => reader
                .string_bytes(false)
                .map_err(within("client_id"))?
                .map(String::from_utf8_lossy),
        };
        if header_version >= 2 {
            reader.skip_tagged_fields().map_err(within("(tagged fields)"))?;
        }
        Ok(RequestHeader {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }

    /// Whether this is an `ApiVersions` request in a version that is not served. Its body is not to be read;
    /// the answer is
    /// [`unsupported_version_response`](super::messages::api_versions::unsupported_version_response).
    pub fn is_unsupported_api_versions(&self) -> bool {
        self.api_key == ApiKey::ApiVersions
            && !supported_versions(self.api_key).is_some_and(|versions| versions.contains(&self.api_version))
    }

    /// Appends the header in the version that its API and version call for; for clients of other brokers, and
    /// tests.
    ///
    /// # Errors
    /// [`EncodeError`] when the client id is longer than 32767 bytes.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let header_version = self.api_key.request_header_version(self.api_version);
        writer.i16(self.api_key.id());
        writer.i16(self.api_version);
        writer.i32(self.correlation_id);
        if header_version >= 1 {
            let client_id = self.client_id.as_deref();
            writer
                .string_length(client_id.map(str::len), false)
                .map_err(|problem| {
                    EncodeError::nameless(self.api_version, problem).within("RequestHeader", "client_id")
                })?;
            writer.bytes(client_id.unwrap_or_default().as_bytes());
        }
        if header_version >= 2 {
            writer.unsigned_varint(0);
        }
        Ok(())
    }
}

/// What stands before the body of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseHeader {
    /// That of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Appends the header of an answer of this API, written in `api_version`.
    pub fn encode(self, writer: &mut Writer, api_key: ApiKey, api_version: i16) {
        writer.i32(self.correlation_id);
        if api_key.response_header_version(api_version) >= 1 {
            writer.unsigned_varint(0);
        }
    }

    /// Reads the header of an answer; for clients of other brokers, and tests.
    ///
    /// # Errors
    /// [`DecodeError`] when the frame ends within it.
    pub fn decode(
        reader: &mut Reader<'_>,
        api_key: ApiKey,
        api_version: i16,
    ) -> Result<ResponseHeader, DecodeError> {
        let correlation_id = reader
            .i32()
            .map_err(|e| e.within("ResponseHeader", "correlation_id"))?;
        if api_key.response_header_version(api_version) >= 1 {
            reader
                .skip_tagged_fields()
                .map_err(|e| e.within("ResponseHeader", "(tagged fields)"))?;
        }
        Ok(ResponseHeader { correlation_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<RequestHeader<'_>, HeaderError> {
        RequestHeader::decode(&mut Reader::new(bytes))
    }

    #[test]
    fn a_header_survives_its_encoding_in_every_version() {
        for (api_key, api_version) in [
            (ApiKey::Produce, 8),
            (ApiKey::Fetch, 12),
            (ApiKey::ApiVersions, 3),
        ] {
            for client_id in [None, Some(""), Some("rdkafka")] {
                let client_id = client_id.map(Cow::Borrowed);
                let header = RequestHeader {
                    api_key,
                    api_version,
                    correlation_id: -7,
                    client_id,
                };
                let mut writer = Writer::new();
                header.encode(&mut writer).unwrap();
                let mut reader = Reader::new(writer.as_slice());
                assert_eq!(RequestHeader::decode(&mut reader).unwrap(), header);
                assert_eq!(reader.remaining(), 0);
            }
        }
    }

    #[test]
    fn unknown_and_unserved_requests_are_told_apart() {
        assert_eq!(
            decode(&[0, 58, 0, 0]),
            Err(HeaderError::UnknownApiKey { api_key: 58 })
        );
        assert_eq!(
            decode(&[0, 17, 0, 0]),
            Err(HeaderError::NotServed {
                api_key: ApiKey::SaslHandshake
            })
        );
        assert_eq!(
            decode(&[0, 0, 0, 9]),
            Err(HeaderError::UnsupportedVersion {
                api_key: ApiKey::Produce,
                api_version: 9
            })
        );
    }

    #[test]
    fn api_versions_is_read_in_any_version() {
        let mut frame = vec![0, 18, 0, 99, 0, 0, 0, 5, 0, 1, b'c', 0];
        frame.extend_from_slice(b"whatever a client of the future says");
        let header = decode(&frame).unwrap();
        assert!(header.is_unsupported_api_versions());
        assert_eq!(
            (header.correlation_id, header.client_id.as_deref()),
            (5, Some("c"))
        );
        let negative = decode(&[0, 18, 0xff, 0xff, 0, 0, 0, 5, 0xff, 0xff]).unwrap();
        assert!(negative.is_unsupported_api_versions());
    }

    #[test]
    fn a_forged_count_of_tagged_fields_runs_into_the_end_of_the_frame() {
        let frame = [0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07];
        let Err(HeaderError::Malformed(error)) = decode(&frame) else {
            panic!("accepted")
        };
        assert_eq!(
            error.to_string(),
            "RequestHeader.(tagged fields) at byte 15: expected 1 bytes, found 0"
        );
    }
}

//! Tests of the batch views.

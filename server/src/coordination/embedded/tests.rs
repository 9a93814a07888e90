//! The tree under test.

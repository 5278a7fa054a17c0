//! Tests of the served files: tags, compression, policies.

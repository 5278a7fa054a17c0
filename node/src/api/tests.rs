//! Tests of the admin port, request by request.

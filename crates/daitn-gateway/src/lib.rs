//! Outward APIs: REST with OpenAPI, Open Inference Protocol, A2A.

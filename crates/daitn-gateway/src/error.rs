//! Why a gateway does not start.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Plain HTTP would carry API keys over a network.
    #[error(
        "{listen} can be reached from outside this machine, and without a certificate API keys would travel in \
         clear. Give `tls.certificate` and `tls.key`, or listen on 127.0.0.1 or [::1]"
    )]
    CertificateNeeded {
        /// Where it was told to listen.
        listen: SocketAddr,
    },
    /// Certificate or key cannot be used.
    #[error("{}: {cause}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {listen}. Is another process using the port?")]
    Listen {
        /// Which address.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// `public_url` or an entry of `origins` is no origin.
    #[error("`{text}` is not a URL such as `https://ai.example.org`, without a path")]
    NotAnOrigin {
        /// The offending text.
        text: String,
    },
}

//! HTTPS, and where it is needed.

use crate::lab::{Lab, config, loopback};
use daitn_gateway::{Gateway, GatewayConfig, StartError, TlsFiles};
use daitn_messages::operation::Scope;
use std::net::{Ipv4Addr, SocketAddr};

struct Files {
    _folder: tempfile::TempDir,
    tls: TlsFiles,
    certificate: Vec<u8>,
}

fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    Files {
        _folder: folder,
        tls,
        certificate: made.cert.pem().into_bytes(),
    }
}

#[tokio::test]
async fn with_a_certificate_everything_is_encrypted() {
    let files = files();
    let lab = Lab::start_with(GatewayConfig {
        tls: Some(files.tls),
        ..config()
    })
    .await;
    assert!(lab.gateway.url().starts_with("https://"));
    let url = format!("https://localhost:{}/v1/status", lab.gateway.local_addr().port());
    let ca = reqwest::Certificate::from_pem(&files.certificate).unwrap();
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca])
        .build()
        .unwrap();
    let asked = trusting
        .get(&url)
        .bearer_auth(crate::lab::secret(Scope::Read))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (asked.status().as_u16(), asked.version()),
        (200, reqwest::Version::HTTP_11)
    );
    // Who does not know the certificate, or speaks in clear, gets nothing.
    assert!(lab.http.get(&url).send().await.is_err());
    let plain = lab.http.get(url.replace("https", "http")).send().await;
    assert!(plain.is_err() || plain.unwrap().status() == 400);
}

#[tokio::test]
async fn without_a_certificate_only_loopback() {
    let lab = Lab::start().await;
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let listen: SocketAddr = listen.parse().unwrap();
        let config = GatewayConfig { listen, ..config() };
        let refused = Gateway::start(config, lab.control.clone(), lab.endpoint.clone()).await;
        assert!(
            matches!(refused, Err(StartError::CertificateNeeded { .. })),
            "{listen}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named_at_the_start() {
    let lab = Lab::start().await;
    let start = async |config| {
        Gateway::start(config, lab.control.clone(), lab.endpoint.clone())
            .await
            .map(|_| ())
    };
    let taken = start(GatewayConfig {
        listen: loopback(lab.gateway.local_addr().port()),
        ..config()
    })
    .await;
    assert!(matches!(taken, Err(StartError::Listen { .. })));
    let files = files();
    for broken in [
        TlsFiles {
            key: files.tls.certificate.clone(),
            ..files.tls.clone()
        },
        TlsFiles {
            certificate: files.tls.key.clone(),
            ..files.tls.clone()
        },
        TlsFiles {
            certificate: "/nowhere".into(),
            ..files.tls.clone()
        },
    ] {
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let refused = start(GatewayConfig {
            listen,
            tls: Some(broken.clone()),
            ..config()
        })
        .await;
        assert!(
            matches!(refused, Err(StartError::Certificate { .. })),
            "{broken:?}"
        );
    }
}

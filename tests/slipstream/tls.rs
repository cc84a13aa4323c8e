//! Encrypted connections: of callers, and between nodes that show each other certificates.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::cluster::{Node, Site, Store, eventually, program};

/// The files of a small authority: its own certificate, a server's and a client's.
struct Authority {
    directory: PathBuf,
}

impl Authority {
    fn new(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(directory.join("ca.pem"), ca.pem())?;
        for (name, subject) in [("server", "localhost"), ("client", "south")] {
            let key = KeyPair::generate()?;
            let names = vec![subject.to_owned(), "127.0.0.1".to_owned()];
            let certificate = CertificateParams::new(names)?.signed_by(&key, &ca)?;
            std::fs::write(directory.join(format!("{name}.pem")), certificate.pem())?;
            std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Runs the command line against a node over TLS.
fn slipstream(node: &Node, authority: &Authority, arguments: &[&str]) -> Result<Output> {
    let url = node.http_url().replace("http://", "https://");
    let mut command = program();
    command.args(arguments).args(["--url", &url]);
    command.args(["--ca", &authority.file("ca.pem")]);
    Ok(command.output()?)
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[tokio::test]
async fn callers_and_nodes_meet_over_tls_and_nodes_show_certificates() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let authority = Authority::new(&site.path().join("certificates"))?;
        let (ca, certificate, key) = (
            authority.file("ca.pem"),
            authority.file("server.pem"),
            authority.file("server.key"),
        );
        let tls = [
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
            "--tls-client-ca",
            &ca,
        ];
        let leader = site.start("leader", "north", "north", &tls).await?;
        for sql in ["CREATE DATABASE d", "CREATE TABLE d.t AS SELECT 1 AS a"] {
            let ran = slipstream(&leader, &authority, &["sql", sql])?;
            ensure!(ran.status.success(), "{}", said(&ran));
        }
        // Neither without encryption nor without trust in who signed the certificate.
        ensure!(
            leader.get("/healthz").await.is_err(),
            "it answered plain HTTP"
        );
        let url = leader.http_url().replace("http://", "https://");
        let stranger = program()
            .args(["sql", "--url", &url, "SELECT 1"])
            .output()?;
        ensure!(!stranger.status.success(), "{}", said(&stranger));

        let address = format!("north={}", leader.grpc_url().replace("http://", "https://"));
        let with_ca = ["--leader", &address, "--leader-ca", &ca];
        let without = site.start("follower", "west", "west", &with_ca).await?;
        let attach = ["attach", "--leader", "north", "--database", "d"];
        let ran = program()
            .args(attach)
            .args(["--url", &without.http_url()])
            .output()?;
        ensure!(said(&ran).contains("--leader-cert"), "{}", said(&ran));

        let (certificate, key) = (authority.file("client.pem"), authority.file("client.key"));
        let own = ["--leader-cert", &certificate, "--leader-key", &key];
        let arguments: Vec<&str> = with_ca.iter().chain(&own).copied().collect();
        let follower = site.start("follower", "south", "south", &arguments).await?;
        let ran = program()
            .args(attach)
            .args(["--url", &follower.http_url()])
            .output()?;
        ensure!(ran.status.success(), "{}", said(&ran));
        let ran = slipstream(&leader, &authority, &["sql", "INSERT INTO d.t VALUES (2)"])?;
        ensure!(ran.status.success(), "{}", said(&ran));
        eventually("the commit arrives over TLS", async || {
            Ok(follower.count("d", "SELECT count(*) FROM t").await? == 2)
        })
        .await?;
        ensure!(
            !follower.log().contains("does not answer"),
            "the stream was up"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named_at_the_start() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let authority = Authority::new(&site.path().join("certificates"))?;
        let garbage = authority.file("garbage.pem");
        std::fs::write(&garbage, "no certificate")?;
        let (certificate, key) = (authority.file("server.pem"), authority.file("client.key"));
        for (certificate, key, phrase) in [
            (&garbage, &key, "holds no certificate"),
            (&certificate, &garbage, "no private key"),
            (&certificate, &key, "does not go with"),
            (&authority.file("missing.pem"), &key, "No such file"),
        ] {
            let files = ["--tls-cert", certificate, "--tls-key", key];
            let started = site.start("leader", "north", "north", &files).await;
            let error = format!(
                "{:#}",
                started.err().map_or_else(String::new, |e| e.to_string())
            );
            ensure!(error.contains(phrase), "{phrase}: {error}");
        }
        Ok(())
    })
    .await
}

//! `docker-compose.yml` against the schema of the Compose Specification, and against what its page promises. No
//! engine is needed; where there is Docker's plugin, it is asked as well.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::yaml::{parse, root, text};

const FILE: &str = "docker-compose.yml";

/// What the specification has against it.
fn check(compose: &Value) -> Result<(), String> {
    let schema = serde_json::from_str(include_str!("compose-spec/compose-spec.json")).unwrap();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("compose.json", schema).unwrap();
    let schema = compiler.compile("compose.json", &mut schemas).unwrap();
    schemas.validate(compose, schema).map_err(|error| error.to_string())
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Value)> {
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn it_follows_the_specification() {
    let compose = parse(&text(FILE));
    check(&compose).unwrap();
    // What is wrong is found.
    for (path, wrong) in [
        ("/services/rabbitmq/ports", json!({"5672": 5672})),
        ("/services/rabbitmq/healthcheck/intervall", json!("10s")),
        ("/services/rabbitmq/volumes", json!("data")),
        ("/servces", json!({})),
    ] {
        let mut changed = compose.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[name] = wrong;
        check(&changed).expect_err(path);
    }
}

#[test]
fn it_is_what_its_page_promises() {
    let compose = parse(&text(FILE));
    assert!(compose.get("version").is_none(), "Compose warns that it is obsolete");
    assert_eq!(compose["name"], "rabbitmq-tutorial");
    let (mut volumes, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (name, service) in services(&compose) {
        assert_eq!(service["image"], "rabbitmq:4.3-management", "{name}");
        // The data directory is named after the host.
        assert_eq!(service["hostname"], name);
        let check = ["CMD", "rabbitmq-diagnostics", "-q", "check_port_connectivity"];
        assert_eq!(strings(&service["healthcheck"]["test"]), check, "{name}");
        for port in strings(&service["ports"]) {
            let (outside, _) = port.strip_prefix("127.0.0.1:").expect(port).split_once(':').unwrap();
            assert!(ports.insert(outside), "port {outside} is {name}'s and another one's");
        }
        for mount in strings(&service["volumes"]) {
            let (source, target) = mount.split_once(':').unwrap();
            if target == "/var/lib/rabbitmq" {
                assert!(compose["volumes"].get(source).is_some(), "{source} is declared nowhere");
                assert!(volumes.insert(source), "{source} is {name}'s and another one's");
            } else {
                assert!(target.ends_with(":ro"), "{mount}");
                // The certificates are made when they are needed.
                assert!(source == "./cert" || root().join(source).is_file(), "there is no {source}");
            }
        }
        assert!(!service.to_string().contains("RABBITMQ_SSL_"), "the image refuses to start with these");
    }
    assert_eq!(volumes.len(), services(&compose).count());

    let default: Vec<_> =
        services(&compose).filter(|(_, service)| service.get("profiles").is_none()).collect();
    let [(_, broker)] = default[..] else { panic!("{default:?}") };
    assert_eq!(strings(&broker["ports"]), ["127.0.0.1:5672:5672", "127.0.0.1:15672:15672"]);
    assert!(broker.get("environment").is_none(), "the account is the image's own");
    assert_eq!(strings(&compose["services"]["rabbitmq-tls"]["ports"]), ["127.0.0.1:5671:5671"]);
}

#[test]
fn the_nodes_of_the_cluster_know_each_other() {
    let compose = parse(&text(FILE));
    let nodes: Vec<_> =
        services(&compose).filter(|(_, service)| strings(&service["profiles"]) == ["cluster"]).collect();
    assert_eq!(nodes.len(), 3);
    let settings = text("tools/compose/cluster.conf");
    for (number, (name, node)) in (1..).zip(&nodes) {
        let line = format!("cluster_formation.classic_config.nodes.{number} = rabbit@{name}");
        assert!(settings.lines().any(|setting| setting == line), "{line}");
        assert_eq!(node["environment"], nodes[0].1["environment"]);
        assert!(node["environment"]["RABBITMQ_ERLANG_COOKIE"].is_string());
        let mounted = "./tools/compose/cluster.conf:/etc/rabbitmq/conf.d/20-cluster.conf:ro";
        assert!(strings(&node["volumes"]).contains(&mounted), "{name}");
    }
    assert_eq!(settings.matches("classic_config.nodes.").count(), 3);
}

#[test]
fn docker_compose_takes_it_where_there_is_one() {
    let compose =
        |args: &[&str]| Command::new("docker").arg("compose").args(args).current_dir(root()).output();
    if !compose(&["version"]).is_ok_and(|output| output.status.success()) {
        println!("no docker compose here: the schema has to do");
        return;
    }
    let output = compose(&["--profile", "*", "config", "-q"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

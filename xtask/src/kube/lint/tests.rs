//! One good set of objects, and one bad change to it per rule.
//!
//! Invariant: the good set has no finding, so that what a change brings is that change's.

use super::*;
use serde_json::json;

fn good() -> Vec<Value> {
    let labels = json!({"app.kubernetes.io/name": "starling"});
    let container = json!({
        "name": "starling", "image": "starling:1.2.3", "args": ["serve", "--config", "/etc/starling/starling.toml"],
        "ports": [{"name": "http", "containerPort": 3000}, {"name": "mesh", "containerPort": 3002, "protocol": "UDP"}],
        "startupProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"httpGet": {"port": "http"}},
        "livenessProbe": {"httpGet": {"port": "http"}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/starling"}]
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 40, "automountServiceAccountToken": false, "enableServiceLinks": false,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [{"labelSelector": {"matchLabels": labels}}],
        "containers": [container], "volumes": [{"name": "config", "configMap": {"name": "settings"}}]
    });
    let workload = json!({
        "serviceName": "mesh", "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}
    });
    let headless = json!({
        "clusterIP": "None", "sessionAffinity": "None", "publishNotReadyAddresses": true, "selector": labels,
        "ports": [{"targetPort": "mesh", "protocol": "UDP"}]
    });
    vec![
        json!({"kind": "StatefulSet", "metadata": {"name": "starling"}, "spec": workload}),
        json!({"kind": "Service", "metadata": {"name": "mesh"}, "spec": headless}),
        json!({"kind": "PodDisruptionBudget", "metadata": {"name": "budget"},
            "spec": {"selector": {"matchLabels": labels}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}}),
        json!({"kind": "ConfigMap", "metadata": {"name": "settings"},
            "data": {"starling.toml": "[drain]\nwindow = \"10s\"\n"}}),
    ]
}

/// The findings after the value at `place` of object number `object` became `value`.
fn after(object: usize, place: &str, value: Value) -> Vec<String> {
    let mut objects = good();
    *objects[object].pointer_mut(place).unwrap_or_else(|| panic!("nothing at {place}")) = value;
    check(&objects, "1.2.3")
}

fn one(findings: &[String], rule: Rule) -> bool {
    let (name, _) = RULES.iter().find(|(_, other)| std::ptr::fn_addr_eq(*other, rule)).unwrap();
    findings.len() == 1 && findings[0].starts_with(name)
}

const POD: &str = "/spec/template/spec";

fn pod(place: &str) -> String {
    format!("{POD}{place}")
}

fn container(place: &str) -> String {
    format!("{POD}/containers/0{place}")
}

#[test]
fn the_good_set_has_no_finding() {
    assert_eq!(check(&good(), "1.2.3"), Vec::<String>::new());
}

#[test]
fn a_governing_service_that_does_not_serve_is_found() {
    assert!(one(&after(0, "/spec/serviceName", json!("nowhere")), governing_service));
    assert!(one(&after(1, "/spec/clusterIP", json!("")), governing_service));
    assert!(one(&after(1, "/spec/publishNotReadyAddresses", json!(false)), governing_service));
}

#[test]
fn a_selector_that_selects_nothing_is_found() {
    let other = json!({"app.kubernetes.io/name": "other"});
    assert!(one(&after(1, "/spec/selector", other.clone()), selectors));
    assert!(one(&after(1, "/spec/selector", json!({})), selectors));
    assert!(one(&after(2, "/spec/selector/matchLabels", other.clone()), selectors));
    assert!(one(&after(0, &pod("/topologySpreadConstraints/0/labelSelector/matchLabels"), other), selectors));
}

#[test]
fn a_port_that_no_container_has_is_found() {
    assert!(one(&after(1, "/spec/ports/0/targetPort", json!("gossip")), ports));
    assert!(one(&after(1, "/spec/ports/0/protocol", json!("TCP")), ports));
    assert!(one(&after(0, &container("/livenessProbe/httpGet/port"), json!("admin")), ports));
    assert!(one(&after(0, &container("/livenessProbe"), Value::Null), ports));
}

#[test]
fn a_grace_period_that_is_one_second_short_is_found() {
    assert!(one(&after(0, &pod("/terminationGracePeriodSeconds"), json!(39)), grace));
    assert!(one(&after(0, &container("/lifecycle/preStop/sleep/seconds"), json!(6)), grace));
    assert!(one(&after(3, "/data/starling.toml", json!("[drain]\nwindow = \"11s\"\n")), grace));
    assert!(one(&after(3, "/data/starling.toml", json!("")), grace));
}

#[test]
fn a_config_file_that_is_not_mounted_is_found() {
    assert!(one(&after(0, &container("/args/2"), json!("/etc/starling/other.toml")), config_file));
    assert!(one(&after(0, &pod("/volumes/0/configMap/name"), json!("elsewhere")), config_file));
    assert!(one(&after(0, &container("/args"), json!(["serve"])), config_file));
}

#[test]
fn an_image_with_another_tag_is_found() {
    assert!(one(&after(0, &container("/image"), json!("starling:latest")), image));
    assert!(one(&after(0, &container("/image"), json!("starling")), image));
}

#[test]
fn missing_resources_and_a_cpu_limit_are_found() {
    assert!(one(&after(0, &container("/resources/requests"), json!({"cpu": "1"})), resources));
    assert!(one(&after(0, &container("/resources/limits"), json!({"cpu": "1", "memory": "1Gi"})), resources));
}

#[test]
fn each_privilege_is_found() {
    for place in ["/securityContext/runAsNonRoot", "/automountServiceAccountToken", "/enableServiceLinks"] {
        assert!(one(&after(0, &pod(place), Value::Null), privileges), "{place}");
    }
    for place in ["/readOnlyRootFilesystem", "/allowPrivilegeEscalation", "/capabilities/drop"] {
        assert!(one(&after(0, &container(&format!("/securityContext{place}")), Value::Null), privileges), "{place}");
    }
}

#[test]
fn a_service_that_keeps_clients_on_one_pod_is_found() {
    assert!(one(&after(1, "/spec/sessionAffinity", json!("ClientIP")), affinity));
}

#[test]
fn misspelt_policies_are_found() {
    assert!(one(&after(0, "/spec/podManagementPolicy", json!("Paralell")), enums));
    assert!(one(&after(0, "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted", json!("Keep")), enums));
    assert!(one(&after(2, "/spec/unhealthyPodEvictionPolicy", json!("IfHealthyBudget")), enums));
}

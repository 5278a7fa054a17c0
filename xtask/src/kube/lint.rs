//! Rules about rendered manifests that no schema knows: names that must meet, times that must fit, policies of this project.
//!
//! Invariant: a rule is a pure function over all rendered objects, with a test on a bad example.

use serde_json::Value;
use std::collections::BTreeMap;

/// What the node needs after its drain window: handing over, flushing, leaving. Seconds.
const MARGIN_SECONDS: u64 = 25;

/// How many rules `check` applies.
pub(super) const RULE_COUNT: usize = RULES.len();

type Rule = fn(&Set<'_>) -> Vec<String>;

/// Every rule by name.
const RULES: [(&str, Rule); 10] = [
    ("the governing service exists, is headless and publishes pods that are not ready", governing_service),
    ("every selector matches the pods", selectors),
    ("every named port exists", ports),
    ("the grace period covers preStop, drain and margin", grace),
    ("the file that the arguments name is in the mounted ConfigMap", config_file),
    ("the image is tagged with the version of the workspace", image),
    ("resources are requested, memory is limited, CPU is not", resources),
    ("the pod runs without privileges", privileges),
    ("no service keeps clients on one pod", affinity),
    ("policies have names that exist", enums),
];

/// All findings over these objects.
pub(super) fn check(objects: &[Value], version: &str) -> Vec<String> {
    let set = Set { objects, version };
    RULES.iter().flat_map(|(name, rule)| rule(&set).into_iter().map(move |what| format!("{name}: {what}"))).collect()
}

/// The node's configuration as the ConfigMap holds it.
pub(super) fn config(objects: &[Value]) -> Option<&str> {
    let maps = objects.iter().filter(|object| object["kind"] == "ConfigMap");
    maps.filter_map(|map| map["data"]["starling.toml"].as_str()).next()
}

struct Set<'a> {
    objects: &'a [Value],
    version: &'a str,
}

impl<'a> Set<'a> {
    fn of(&self, kind: &'static str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn workloads(&self) -> impl Iterator<Item = &'a Value> {
        self.of("StatefulSet")
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        self.workloads().flat_map(|set| array(&set["spec"]["template"]["spec"]["containers"]))
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("(no name)")
}

fn governing_service(set: &Set<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in set.workloads() {
        let wanted = workload["spec"]["serviceName"].as_str().unwrap_or_default();
        match set.of("Service").find(|service| name(service) == wanted) {
            None => findings.push(format!("service `{wanted}` does not exist")),
            Some(service) if service["spec"]["clusterIP"] != "None" => {
                findings.push(format!("`{wanted}` is not headless"));
            }
            Some(service) if service["spec"]["publishNotReadyAddresses"] != true => {
                findings
                    .push(format!("`{wanted}` hides pods that are not ready: a cold start of all would wait for ever"));
            }
            Some(_) => {}
        }
    }
    if set.workloads().next().is_none() {
        findings.push("there is no StatefulSet".to_owned());
    }
    findings
}

fn selectors(set: &Set<'_>) -> Vec<String> {
    let mut wanted: Vec<(String, &Value)> = Vec::new();
    set.of("Service").for_each(|service| wanted.push((name(service).to_owned(), &service["spec"]["selector"])));
    for budget in set.of("PodDisruptionBudget") {
        wanted.push((name(budget).to_owned(), &budget["spec"]["selector"]["matchLabels"]));
    }
    for workload in set.workloads() {
        wanted.push((name(workload).to_owned(), &workload["spec"]["selector"]["matchLabels"]));
        for spread in array(&workload["spec"]["template"]["spec"]["topologySpreadConstraints"]) {
            wanted.push((format!("spread of {}", name(workload)), &spread["labelSelector"]["matchLabels"]));
        }
    }
    let matches = |selector: &Value| {
        let Some(selector) = selector.as_object().filter(|labels| !labels.is_empty()) else { return false };
        set.workloads().any(|workload| {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            selector.iter().all(|(key, value)| labels[key] == *value)
        })
    };
    wanted.iter().filter(|(_, selector)| !matches(selector)).map(|(of, _)| format!("`{of}` selects no pod")).collect()
}

fn ports(set: &Set<'_>) -> Vec<String> {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for port in set.containers().flat_map(|container| array(&container["ports"])) {
        known.insert(port["name"].as_str().unwrap_or_default(), port["protocol"].as_str().unwrap_or("TCP"));
    }
    let mut findings = Vec::new();
    let mut look = |of: &str, target: &Value, protocol: &str| {
        if let Some(target) = target.as_str().filter(|target| known.get(target) != Some(&protocol)) {
            findings.push(format!("`{of}` names port `{target}` ({protocol}), which no container has"));
        }
    };
    for service in set.of("Service") {
        for port in array(&service["spec"]["ports"]) {
            look(name(service), &port["targetPort"], port["protocol"].as_str().unwrap_or("TCP"));
        }
    }
    for container in set.containers() {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if container[probe].is_null() {
                look(probe, &Value::from("a missing probe"), "TCP");
            }
            look(probe, &container[probe]["httpGet"]["port"], "TCP");
        }
    }
    findings
}

fn grace(set: &Set<'_>) -> Vec<String> {
    let window = config(set.objects).and_then(drain_window);
    let Some(window) = window else { return vec!["the configuration has no [drain] window in seconds".to_owned()] };
    let mut findings = Vec::new();
    for workload in set.workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let stops = array(&pod["containers"]).iter().map(|c| c["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64());
        let pre_stop = stops.max().flatten().unwrap_or(0);
        let (grace, needed) =
            (pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30), pre_stop + window + MARGIN_SECONDS);
        if grace < needed {
            let parts = format!("{pre_stop} preStop + {window} drain + {MARGIN_SECONDS} margin");
            findings.push(format!("`{}` has {grace} s, needs {needed} s ({parts})", name(workload)));
        }
    }
    findings
}

fn drain_window(config: &str) -> Option<u64> {
    let config: toml::Table = config.parse().ok()?;
    config.get("drain")?.get("window")?.as_str()?.strip_suffix('s')?.parse().ok()
}

fn config_file(set: &Set<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in set.workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let volumes = array(&pod["volumes"]);
        for container in array(&pod["containers"]) {
            let arguments = array(&container["args"]).iter().filter_map(Value::as_str);
            let Some(file) = arguments.skip_while(|word| *word != "--config").nth(1) else {
                findings.push("no `--config FILE` in the arguments".to_owned());
                continue;
            };
            let mounted = array(&container["volumeMounts"]).iter().any(|mount| {
                let key = mount["mountPath"].as_str().and_then(|at| file.strip_prefix(at)?.strip_prefix('/'));
                let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
                let map = volume.map_or(&Value::Null, |volume| &volume["configMap"]["name"]);
                let holds = |key: &str| set.of("ConfigMap").any(|m| *map == name(m) && m["data"][key].is_string());
                key.is_some_and(holds)
            });
            if !mounted {
                findings.push(format!("`{file}` is in no mounted ConfigMap"));
            }
        }
    }
    findings
}

fn image(set: &Set<'_>) -> Vec<String> {
    let images = set.containers().map(|container| container["image"].as_str().unwrap_or_default());
    let wrong = images.filter(|image| image.rsplit_once(':').map(|(_, tag)| tag) != Some(set.version));
    wrong.map(|image| format!("`{image}` is not tagged {}", set.version)).collect()
}

fn resources(set: &Set<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for resources in set.containers().map(|container| &container["resources"]) {
        if resources["requests"]["cpu"].is_null() || resources["requests"]["memory"].is_null() {
            findings.push("a container requests no CPU or no memory".to_owned());
        }
        if resources["limits"]["memory"].is_null() || !resources["limits"]["cpu"].is_null() {
            findings.push("limit the memory and not the CPU (throttling is tail latency)".to_owned());
        }
    }
    findings
}

fn privileges(set: &Set<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut want = |good: bool, what: &str| {
        if !good {
            findings.push(what.to_owned());
        }
    };
    for pod in set.workloads().map(|workload| &workload["spec"]["template"]["spec"]) {
        want(pod["securityContext"]["runAsNonRoot"] == true, "runAsNonRoot is not true");
        want(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp profile");
        want(pod["automountServiceAccountToken"] == false, "the service account's token is mounted");
        want(pod["enableServiceLinks"] == false, "service links would add STARLING_ variables");
        for security in array(&pod["containers"]).iter().map(|container| &container["securityContext"]) {
            want(security["readOnlyRootFilesystem"] == true, "the root filesystem can be written");
            want(security["allowPrivilegeEscalation"] == false, "privileges can be raised");
            want(security["capabilities"]["drop"] == serde_json::json!(["ALL"]), "capabilities are kept");
        }
    }
    findings
}

/// Any request may reach any node; a service that prevents it only spreads the load badly.
fn affinity(set: &Set<'_>) -> Vec<String> {
    let sticks = |service: &&Value| service["spec"]["sessionAffinity"] == "ClientIP";
    set.of("Service").filter(sticks).map(|service| format!("`{}` has an affinity", name(service))).collect()
}

fn enums(set: &Set<'_>) -> Vec<String> {
    const ALLOWED: [(&str, &[&str]); 4] = [
        ("/spec/podManagementPolicy", &["OrderedReady", "Parallel"]),
        ("/spec/updateStrategy/type", &["RollingUpdate", "OnDelete"]),
        ("/spec/persistentVolumeClaimRetentionPolicy/whenDeleted", &["Retain", "Delete"]),
        ("/spec/persistentVolumeClaimRetentionPolicy/whenScaled", &["Retain", "Delete"]),
    ];
    let mut findings = Vec::new();
    for (workload, (place, allowed)) in set.workloads().flat_map(|w| ALLOWED.iter().map(move |rule| (w, rule))) {
        let value = workload.pointer(place).and_then(Value::as_str).unwrap_or("(nothing)");
        if !allowed.contains(&value) {
            findings.push(format!("{place} is `{value}`, not one of {}", allowed.join(", ")));
        }
    }
    for budget in set.of("PodDisruptionBudget") {
        if budget["spec"]["unhealthyPodEvictionPolicy"] != "AlwaysAllow" {
            findings.push("a budget that keeps unhealthy pods blocks node drains for ever".to_owned());
        }
    }
    findings
}

#[cfg(test)]
mod tests;

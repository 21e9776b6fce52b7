#!/usr/bin/env python3
"""The checks of ci/image/manifests."""

import json
import re
import sys
import urllib.request

import kubernetes_validate
import yaml

KUBERNETES = "1.33"
PLAIN = "ci/image/kubernetes/quorate.yaml"
FILES = [PLAIN, "ci/image/kubernetes/static-pod.yaml"]
MONITORING = "ci/image/monitoring"
# Of other programs; its schema is not Kubernetes'.
FOREIGN = {"ServiceMonitor"}
# Metrics that etcd's alerts and dashboards (contrib/mixin) name.
MIXIN = """
etcd_server_has_leader etcd_server_leader_changes_seen_total etcd_server_proposals_failed_total
etcd_server_proposals_pending etcd_server_proposals_committed_total etcd_server_proposals_applied_total
etcd_server_quota_backend_bytes etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes
etcd_disk_wal_fsync_duration_seconds_bucket etcd_disk_backend_commit_duration_seconds_bucket
etcd_network_client_grpc_received_bytes_total etcd_network_client_grpc_sent_bytes_total
grpc_server_started_total grpc_server_handled_total process_resident_memory_bytes
""".split()
# Only of a member that has others, or after it has happened.
OF_CLUSTERS = re.compile(r"^(etcd_network_peer_|quorate_corruption_checks_total)")
NAME = re.compile(r"\b(?:etcd|quorate|grpc|process)_[a-z_]+\b")


class Strict(yaml.SafeLoader):
    """Takes no key twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        plain = [key for key in keys if key != "<<"]
        if len(plain) != len(set(plain)):
            raise yaml.YAMLError(f"a key is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.load_all(file, Strict) if document]


def validate(path):
    found = documents(path)
    for document in found:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    return found


def expressions():
    for group in documents(f"{MONITORING}/alerts.yaml")[0]["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    with open(f"{MONITORING}/dashboard.json", encoding="utf-8") as file:
        for panel in json.load(file)["panels"]:
            for target in panel["targets"]:
                yield target["expr"]


def metrics(url):
    """The names on a member's page, which is asked for compressed, and their values."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body = answer.read()
        assert answer.headers["Content-Encoding"] == "gzip", "the page is compressed when that is asked for"
    import gzip

    lines = gzip.decompress(body).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name.split("{")[0]: float(value) for name, value in pairs}


def check_metrics(url):
    there = metrics(url)
    wanted = set(MIXIN)
    for expression in expressions():
        wanted.update(NAME.findall(expression))
    missing = {name for name in wanted - there.keys() if not OF_CLUSTERS.match(name)}
    missing.discard("grpc_code")
    missing.discard("grpc_method")
    assert not missing, f"no member has the metrics {sorted(missing)}"
    live, used = there["etcd_mvcc_db_total_size_in_bytes"], there["etcd_mvcc_db_total_size_in_use_in_bytes"]
    assert live == used, f"fragmentation is reported: {used} of {live}"
    print(f"{len(wanted)} metrics of alerts and dashboards are there")


def main():
    rendered, url = sys.argv[1], sys.argv[2]
    for path in FILES:
        print(f"{path}: {len(validate(path))} documents are valid")
    kinds = [document["kind"] for document in documents(PLAIN)]
    for kind in ["StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"]:
        assert kind in kinds, f"there is no {kind}"
    if rendered:
        assert validate(rendered) == documents(PLAIN), f"{PLAIN} is not what the chart renders"
        print("the chart renders the manifests")
    if url:
        check_metrics(url)


main()

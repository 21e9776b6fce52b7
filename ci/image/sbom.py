#!/usr/bin/env python3
"""Prints a bill of materials of the programs (CycloneDX 1.5): every crate that is compiled into one, with
its version, licence and checksum, and what depends on what. The same Cargo.lock gives the same bill."""

import json
import re
import subprocess
import uuid

NOT_LINKED = {"dev", "build"}


def metadata():
    host = subprocess.run(["rustc", "--print", "host-tuple"], check=True, capture_output=True, text=True)
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host.stdout.strip()]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def linked(nodes, root):
    """What the root's programs are made of: not what only its tests or build scripts need."""
    found, todo = {}, [root]
    while todo:
        node = todo.pop()
        if node in found:
            continue
        deps = nodes[node]["deps"]
        kinds = lambda dep: {kind["kind"] for kind in dep["dep_kinds"]}
        found[node] = sorted(dep["pkg"] for dep in deps if kinds(dep) - NOT_LINKED)
        todo.extend(found[node])
    return found


def component(package, checksums):
    name, version = package["name"], package["version"]
    made = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package.get("license"):
        # Cargo's older way of writing an alternative.
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if (name, version) in checksums:
        made["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
    return made


def main():
    data = metadata()
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    (root,) = [package["id"] for package in data["packages"] if package["name"] == "quorate"]
    with open("Cargo.lock", encoding="utf-8") as file:
        lock = file.read()
    pattern = r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"'
    checksums = {(name, version): checksum for name, version, checksum in re.findall(pattern, lock)}
    graph = linked(nodes, root)
    ref = lambda package: component(packages[package], checksums)["bom-ref"]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, lock)}",
        "version": 1,
        "metadata": {"component": {**component(packages[root], checksums), "type": "application"}},
        "components": sorted(
            (component(packages[node], checksums) for node in graph if node != root),
            key=lambda made: made["bom-ref"],
        ),
        "dependencies": sorted(
            ({"ref": ref(node), "dependsOn": sorted(map(ref, deps))} for node, deps in graph.items()),
            key=lambda made: made["ref"],
        ),
    }
    print(json.dumps(bill, indent=1, sort_keys=True))


main()

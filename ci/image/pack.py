#!/usr/bin/env python3
"""Packs a folder as an image that `docker load`, `podman load` and `ctr image import` read.

Equal files make an equal image: names are sorted, times are the commit's, owners are given here. Two
images share the layer: one runs as nobody, one, with the tag -root, as root.
"""

import argparse
import hashlib
import io
import json
import os
import stat
import tarfile
import time

NOBODY = 65534
# Folders of the image that no file brings: path, mode, owner.
FOLDERS = [
    ("tmp", 0o1777, 0),
    ("var/lib/etcd", 0o700, NOBODY),
    ("var/etcd", 0o700, NOBODY),
    # The folder of etcd's documented commands: a new volume there gets this owner.
    ("etcd-data", 0o700, NOBODY),
]
SECOND = 1_000_000_000


def entries(root):
    """Every path below the folder, sorted, and the folders above those that no file brings."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = path
    for path, _, _ in FOLDERS:
        while path:
            found.setdefault(path, None)
            path = os.path.dirname(path)
    return sorted(found.items())


def layer(root, created):
    special = {path: (mode, owner) for path, mode, owner in FOLDERS}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in entries(root):
            info = tarfile.TarInfo(name)
            info.mtime = created
            info.mode = 0o755
            content = None
            if path is not None and os.path.islink(path):
                info.type = tarfile.SYMTYPE
                info.linkname = os.readlink(path)
                info.mode = 0o777
            elif path is None or os.path.isdir(path):
                info.type = tarfile.DIRTYPE
                info.mode, info.uid = special.get(name, (0o755, 0))
                info.gid = info.uid
            else:
                with open(path, "rb") as file:
                    content = file.read()
                info.size = len(content)
                if not os.stat(path).st_mode & stat.S_IXUSR:
                    info.mode = 0o644
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return out.getvalue()


def config(given, diff, size, user):
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(given.created))
    labels = {
        "org.opencontainers.image.title": "quorate",
        "org.opencontainers.image.description":
            "An etcd-compatible replicated key-value store: a drop-in for etcd's image",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": tag(given),
        "org.opencontainers.image.revision": given.revision,
        "org.opencontainers.image.created": when,
        "io.quorate.etcd.version": given.etcd,
        "io.quorate.sbom": "/usr/share/doc/quorate/sbom.cdx.json",
    }
    return {
        "architecture": given.architecture,
        "os": "linux",
        "created": when,
        "config": {
            "User": user,
            "Env": ["PATH=/usr/local/bin", "QUORATE_IMAGE=1"],
            "Entrypoint": ["/usr/local/bin/quorate"],
            "WorkingDir": "/var/lib/etcd",
            "ExposedPorts": {"2379/tcp": {}, "2380/tcp": {}},
            "Volumes": {"/var/lib/etcd": {}, "/var/etcd": {}},
            "Labels": labels,
            "StopSignal": "SIGTERM",
            "Healthcheck": {
                "Test": ["CMD", "/usr/local/bin/quorate", "healthcheck"],
                "Interval": 5 * SECOND,
                "Timeout": 10 * SECOND,
                "StartPeriod": 30 * SECOND,
                "Retries": 3,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        "history": [{"created": when, "created_by": "ci/image/build"}],
    }


def tag(given):
    return f"v{given.etcd}-quorate.{given.version}"


def add(tar, name, content, created):
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), created, 0o644
    tar.addfile(info, io.BytesIO(content))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ["files", "archive", "name", "etcd", "version", "revision"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--created", required=True, type=int)
    parser.add_argument("--architecture", default={"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine))
    given = parser.parse_args()

    content = layer(given.files, given.created)
    diff = hashlib.sha256(content).hexdigest()
    manifest, configs = [], []
    images = [(f"{NOBODY}:{NOBODY}", ["latest", tag(given)]), ("0:0", [f"{tag(given)}-root"])]
    for user, tags in images:
        made = config(given, diff, len(content), user)
        text = json.dumps(made, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(text).hexdigest()
        configs.append((f"{digest}.json", text))
        names = [f"{given.name}:{tag}" for tag in tags]
        manifest.append({"Config": f"{digest}.json", "RepoTags": names, "Layers": [f"{diff}/layer.tar"]})
        print(f"sha256:{digest} {' '.join(names)}")
    with tarfile.open(given.archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, f"{diff}/layer.tar", content, given.created)
        for name, text in configs:
            add(tar, name, text, given.created)
        add(tar, "manifest.json", json.dumps(manifest).encode(), given.created)
    print(f"{len(content) / 1e6:.1f} MB")


main()

"""What the Python client etcd3 does, of a cluster with TLS, client certificates and users.

Its command line is one word of JSON: `endpoints` (host:port each), `ca`, and `certs` by name, each a
pair of files of a certificate and its key. "client" names no user, "ann" names the user ann, "stranger"
is of another authority. The cluster is empty and without users; the suite makes them. tests/it/clients.rs
starts the cluster.
"""

import hashlib
import io
import json
import sys
import threading
import time
import unittest

import etcd3
import grpc
from etcd3 import etcdrpc

WORLD = json.loads(sys.argv.pop())
ENDPOINTS = WORLD["endpoints"]
# Longer than anything takes on a busy machine.
PATIENCE = 30
BBOLT_MAGIC = bytes.fromhex("edda0ced")


def connect(user=None, member=0, cert="client", password=None):
    """A client of one member; users' passwords are their names with pw behind."""
    host, port = ENDPOINTS[member % len(ENDPOINTS)].rsplit(":", 1)
    certificate, key = WORLD["certs"].get(cert, (None, None))
    if user is not None and password is None:
        password = user + "pw"
    return etcd3.client(host=host, port=int(port), ca_cert=WORLD["ca"], cert_cert=certificate,
                        cert_key=key, user=user, password=password, timeout=PATIENCE)


def refused(test, code, text, call):
    """The call fails with this code and text, exactly."""
    try:
        answer = call()
    except grpc.RpcError as error:
        test.assertEqual((error.code(), error.details()), (code, text))
    except etcd3.exceptions.PreconditionFailedError as error:
        # The client hides the status behind an exception without text.
        status = error.__context__
        test.assertEqual((status.code(), status.details()), (code, text))
    else:
        test.fail(f"not refused: {answer}")


def make_users():
    """root; ann, who may do everything below ann/ and read below shared/; bob, who may nothing."""
    auth = etcdrpc.AuthStub(connect().channel)
    for name in ["root", "ann", "bob"]:
        auth.UserAdd(etcdrpc.AuthUserAddRequest(name=name, password=name + "pw"), PATIENCE)
    for name in ["root", "writer"]:
        auth.RoleAdd(etcdrpc.AuthRoleAddRequest(name=name), PATIENCE)
    for kind, prefix in [("READWRITE", "ann"), ("READ", "shared")]:
        permission = {"permType": kind, "key": f"{prefix}/".encode(), "range_end": f"{prefix}0".encode()}
        auth.RoleGrantPermission(
            etcdrpc.AuthRoleGrantPermissionRequest(name="writer", perm=permission), PATIENCE)
    for user, role in [("root", "root"), ("ann", "writer")]:
        auth.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user=user, role=role), PATIENCE)
    auth.AuthEnable(etcdrpc.AuthEnableRequest(), PATIENCE)


class Case(unittest.TestCase):
    """A client for each kind of user, and another one of another member."""

    def setUp(self):
        self.root = connect("root")
        self.ann = connect("ann")
        self.other = connect("ann", member=1)


class Keys(Case):
    def test_put_and_get(self):
        first = self.ann.put("ann/kv/a", "1")
        second = self.ann.put("ann/kv/a", b"\x00\xff", prev_kv=True)
        self.assertEqual(second.header.revision, first.header.revision + 1)
        self.assertEqual(second.prev_kv.value, b"1")
        value, meta = self.other.get("ann/kv/a")
        self.assertEqual(value, b"\x00\xff")
        self.assertEqual(meta.key, b"ann/kv/a")
        self.assertEqual(meta.create_revision, first.header.revision)
        self.assertEqual(meta.mod_revision, second.header.revision)
        self.assertEqual((meta.version, meta.lease_id), (2, 0))
        self.assertEqual(self.ann.get("ann/kv/none"), (None, None))

    def test_ranges(self):
        for name, value in [("a", "3"), ("b", "2"), ("c", "1")]:
            self.ann.put(f"ann/range/{name}", value)
        values = lambda found: [value for value, _ in found]
        self.assertEqual(values(self.other.get_prefix("ann/range/")), [b"3", b"2", b"1"])
        by_value = self.ann.get_prefix("ann/range/", sort_order="ascend", sort_target="value")
        self.assertEqual(values(by_value), [b"1", b"2", b"3"])
        by_mod = self.ann.get_prefix("ann/range/", sort_order="descend", sort_target="mod")
        self.assertEqual(values(by_mod), [b"1", b"2", b"3"])
        some = self.ann.get_range("ann/range/a", "ann/range/c")
        self.assertEqual([meta.key for _, meta in some], [b"ann/range/a", b"ann/range/b"])
        keys = list(self.ann.get_prefix("ann/range/", keys_only=True))
        self.assertEqual([(value, meta.version) for value, meta in keys], [(b"", 1)] * 3)
        everything = {meta.key for _, meta in self.root.get_all()}
        self.assertLessEqual({f"ann/range/{name}".encode() for name in "abc"}, everything)

    def test_delete(self):
        for name in "abc":
            self.ann.put(f"ann/delete/{name}", name)
        gone = self.ann.delete("ann/delete/a", prev_kv=True, return_response=True)
        self.assertEqual([(kv.key, kv.value) for kv in gone.prev_kvs], [(b"ann/delete/a", b"a")])
        self.assertIs(self.ann.delete("ann/delete/a"), False)
        self.assertEqual(self.ann.delete_prefix("ann/delete/").deleted, 2)
        self.assertEqual(list(self.other.get_prefix("ann/delete/")), [])

    def test_conditions(self):
        self.assertIs(self.ann.put_if_not_exists("ann/cond/a", "1"), True)
        self.assertIs(self.ann.put_if_not_exists("ann/cond/a", "2"), False)
        self.assertIs(self.ann.replace("ann/cond/a", "2", "3"), False)
        self.assertIs(self.ann.replace("ann/cond/a", "1", "3"), True)
        self.assertEqual(self.other.get("ann/cond/a")[0], b"3")

    def test_txn(self):
        put, get, delete = (getattr(self.ann.transactions, n) for n in ["put", "get", "delete"])
        self.ann.put("ann/txn/a", "1")
        _, meta = self.ann.get("ann/txn/a")
        holds = [
            self.ann.transactions.value("ann/txn/a") == "1",
            self.ann.transactions.version("ann/txn/a") == 1,
            self.ann.transactions.create("ann/txn/a") == meta.create_revision,
            self.ann.transactions.mod("ann/txn/a") > meta.mod_revision - 1,
            self.ann.transactions.version("ann/txn/none") < 1,
        ]
        done, answers = self.ann.transaction(
            compare=holds,
            success=[put("ann/txn/b", "2"), get("ann/txn/b"), delete("ann/txn/a"), get("ann/txn/a")],
            failure=[put("ann/txn/c", "3")],
        )
        self.assertIs(done, True)
        self.assertEqual(answers[0].response_put.header.revision, meta.mod_revision + 1)
        (value, found), = answers[1]
        self.assertEqual((value, found.mod_revision), (b"2", meta.mod_revision + 1))
        self.assertEqual(answers[2].response_delete_range.deleted, 1)
        self.assertEqual(answers[3], [])
        done, answers = self.ann.transaction(
            compare=holds, success=[put("ann/txn/b", "4")], failure=[get("ann/txn/b")])
        self.assertIs(done, False)
        self.assertEqual([value for value, _ in answers[0]], [b"2"])
        twice = [put("ann/txn/b", "5"), put("ann/txn/b", "6")]
        refused(self, grpc.StatusCode.INVALID_ARGUMENT,
                "etcdserver: duplicate key given in txn request",
                lambda: self.ann.transaction(compare=[], success=twice, failure=[]))

    def test_past(self):
        revision = self.ann.put("ann/past", "1").header.revision
        self.ann.put("ann/past", "2")
        request = etcdrpc.RangeRequest(key=b"ann/past", revision=revision)
        ask = lambda client: client.kvstub.Range(request, PATIENCE, metadata=client.metadata)
        self.assertEqual([kv.value for kv in ask(self.other).kvs], [b"1"])
        self.root.compact(revision + 1, physical=True)
        refused(self, grpc.StatusCode.OUT_OF_RANGE,
                "etcdserver: mvcc: required revision has been compacted", lambda: ask(self.ann))
        with self.assertRaises(etcd3.exceptions.RevisionCompactedError) as compacted:
            next(self.ann.watch("ann/past", start_revision=revision)[0])
        self.assertEqual(compacted.exception.compacted_revision, revision + 1)


class Watches(Case):
    def test_live_and_past(self):
        events, cancel = self.other.watch_prefix("ann/watch/", prev_kv=True)
        first = self.ann.put("ann/watch/a", "1").header.revision
        self.ann.put("ann/watch/a", "2")
        self.ann.put("ann/elsewhere", "0")
        self.ann.delete("ann/watch/a")
        seen = [next(events) for _ in range(3)]
        cancel()
        kinds = [type(event) for event in seen]
        put, delete = etcd3.events.PutEvent, etcd3.events.DeleteEvent
        self.assertEqual(kinds, [put, put, delete])
        self.assertEqual([event.value for event in seen], [b"1", b"2", b""])
        self.assertEqual([event.prev_value for event in seen], [b"", b"1", b"2"])
        revisions = [event.mod_revision for event in seen]
        self.assertEqual(revisions, [first, first + 1, first + 3])
        past, cancel = self.ann.watch("ann/watch/a", start_revision=first + 1)
        again = [next(past) for _ in range(2)]
        cancel()
        self.assertEqual([event.mod_revision for event in again], revisions[1:])

    def test_callback_and_timeout(self):
        seen, came = [], threading.Event()

        def note(answer):
            seen.extend(answer.events)
            came.set()

        number = self.ann.add_watch_callback("ann/callback", note)
        self.ann.put("ann/callback", "1")
        self.assertTrue(came.wait(PATIENCE))
        self.assertEqual([(event.key, event.value) for event in seen], [(b"ann/callback", b"1")])
        self.ann.cancel_watch(number)
        self.ann.put("ann/callback", "2")
        with self.assertRaises(etcd3.exceptions.WatchTimedOut):
            self.ann.watch_once("ann/callback", timeout=0.2)
        self.assertEqual(len(seen), 1, "a watch that was cancelled sees nothing")

    def test_denied(self):
        call = self.ann.watcher._watch_stub.Watch(
            iter([self.ann.watcher._create_watch_request("bob")]), PATIENCE,
            metadata=self.ann.metadata)
        answer = next(call)
        call.cancel()
        self.assertEqual((answer.created, answer.canceled, answer.watch_id), (True, True, -1))
        self.assertEqual(answer.cancel_reason,
                         "rpc error: code = PermissionDenied desc = etcdserver: permission denied")


class Leases(Case):
    def test_life(self):
        lease = self.ann.lease(600, lease_id=7001)
        self.assertEqual((lease.id, lease.ttl), (7001, 600))
        refused(self, grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists",
                lambda: self.other.lease(600, lease_id=7001))
        self.ann.put("ann/lease/a", "1", lease=lease)
        self.ann.put("ann/lease/b", "2", lease=lease)
        self.assertEqual(self.ann.get("ann/lease/a")[1].lease_id, 7001)
        self.assertEqual(sorted(lease.keys), [b"ann/lease/a", b"ann/lease/b"])
        self.assertEqual(lease.granted_ttl, 600)
        self.assertTrue(590 < lease.remaining_ttl <= 600, lease.remaining_ttl)
        answer, = lease.refresh()
        self.assertEqual((answer.ID, answer.TTL), (7001, 600))
        elsewhere, = self.other.refresh_lease(7001)
        self.assertEqual((elsewhere.ID, elsewhere.TTL), (7001, 600))
        lease.revoke()
        self.assertEqual(list(self.other.get_prefix("ann/lease/")), [])
        self.assertEqual([a.TTL for a in self.ann.refresh_lease(7001)], [0])
        self.assertEqual(self.ann.get_lease_info(7001).TTL, -1)
        refused(self, grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", lease.revoke)
        refused(self, grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found",
                lambda: self.ann.put("ann/lease/a", "1", lease=7001))

    def test_end(self):
        events, cancel = self.other.watch("ann/ends")
        lease = self.ann.lease(1)
        self.assertEqual(lease.ttl, 2, "the shortest there is")
        self.ann.put("ann/ends", "1", lease=lease)
        self.assertEqual(next(events).value, b"1")
        end = next(events)
        cancel()
        self.assertIsInstance(end, etcd3.events.DeleteEvent)
        self.assertEqual(self.ann.get("ann/ends"), (None, None))

    def test_others_keys(self):
        lease = self.root.lease(600)
        self.root.put("shared/leased", "1", lease=lease)
        refused(self, grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied",
                lambda: self.ann.revoke_lease(lease.id))
        self.assertEqual(self.ann.get("shared/leased")[0], b"1")
        lease.revoke()
        self.assertEqual(self.ann.get("shared/leased"), (None, None))


class Locks(Case):
    def test_lock(self):
        # The client puts its locks below /locks/, where only root may write.
        one, other = (client.lock("l", ttl=60) for client in [self.root, connect("root", member=2)])
        self.assertIs(one.acquire(timeout=PATIENCE), True)
        self.assertIs(one.is_acquired(), True)
        self.assertIs(other.acquire(timeout=0.3), False)
        self.assertIs(other.is_acquired(), False)
        value, meta = self.root.get("/locks/l")
        self.assertEqual((value, meta.lease_id, meta.version), (one.uuid, one.lease.id, 1))
        self.assertEqual([answer.TTL for answer in one.refresh()], [60])
        waiting = threading.Thread(target=other.acquire, kwargs={"timeout": PATIENCE})
        waiting.start()
        self.assertIs(one.release(), True)
        waiting.join()
        self.assertEqual((one.is_acquired(), other.is_acquired()), (False, True))
        other.lease.revoke()
        self.assertIs(other.release(), False, "the lock went with its lease")


class Users(Case):
    DENIED = (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")

    def auth(self, client):
        stub = etcdrpc.AuthStub(client.channel)
        call = lambda name, kind, /, **fields: getattr(stub, name)(
            getattr(etcdrpc, kind)(**fields), PATIENCE, metadata=client.metadata)
        return call

    def test_permissions(self):
        self.root.put("shared/a", "1")
        self.assertEqual(self.ann.get("shared/a")[0], b"1")
        refused(self, *self.DENIED, lambda: self.ann.put("shared/a", "2"))
        refused(self, *self.DENIED, lambda: self.ann.delete("shared/a"))
        refused(self, *self.DENIED, lambda: list(self.ann.get_prefix("a")))
        refused(self, *self.DENIED, lambda: self.ann.transaction(
            compare=[], success=[], failure=[self.ann.transactions.put("shared/a", "2")]))
        refused(self, *self.DENIED, lambda: connect("bob").get("shared/a"))
        refused(self, *self.DENIED, lambda: self.ann.compact(1))
        self.assertEqual(self.root.get("shared/a")[0], b"1")

    def test_who_is_let_in(self):
        wrong = "etcdserver: authentication failed, invalid user ID or password"
        for user, password in [("ann", "wrong"), ("nobody", "annpw"), ("ann", "")]:
            refused(self, grpc.StatusCode.INVALID_ARGUMENT, wrong,
                    lambda: connect(user, password=password))
        client = connect("ann")
        client.metadata, client.call_credentials = (("token", "nonsense.1"),), None
        refused(self, grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token",
                lambda: client.get("ann/a"))

    def test_certificates(self):
        # A certificate names a user where no token does.
        self.root.put("shared/cert", "1")
        named = connect(cert="ann")
        self.assertEqual(named.get("shared/cert")[0], b"1")
        refused(self, *self.DENIED, lambda: named.put("shared/cert", "2"))
        refused(self, *self.DENIED, lambda: connect().get("shared/cert"))
        self.assertEqual(connect("root", cert="ann").put("shared/cert", "2").header.member_id,
                         self.root.get("shared/cert")[1].response_header.member_id)
        for cert in ["stranger", "none"]:
            with self.assertRaises(etcd3.exceptions.ConnectionFailedError):
                connect(cert=cert).get("shared/cert")
        self.assertEqual(self.root.get("shared/cert")[0], b"2")

    def test_changes(self):
        auth = self.auth(self.root)
        auth("UserAdd", "AuthUserAddRequest", name="eve", password="evepw")
        auth("RoleAdd", "AuthRoleAddRequest", name="eves")
        permission = {"permType": "READWRITE", "key": b"eve"}
        auth("RoleGrantPermission", "AuthRoleGrantPermissionRequest", name="eves", perm=permission)
        self.assertIn("eve", auth("UserList", "AuthUserListRequest").users)
        self.assertIn("eves", auth("RoleList", "AuthRoleListRequest").roles)
        role, = auth("RoleGet", "AuthRoleGetRequest", role="eves").perm
        self.assertEqual((role.permType, role.key, role.range_end), (2, b"eve", b""))
        eve = connect("eve", member=1)
        refused(self, *self.DENIED, lambda: eve.put("eve", "1"))
        auth("UserGrantRole", "AuthUserGrantRoleRequest", user="eve", role="eves")
        self.assertEqual(list(auth("UserGet", "AuthUserGetRequest", name="eve").roles), ["eves"])
        # The token of before the change is as good as it was.
        eve.put("eve", "1")
        self.assertEqual(self.root.get("eve")[0], b"1")
        refused(self, *self.DENIED, lambda: self.auth(eve)("UserList", "AuthUserListRequest"))
        auth("UserChangePassword", "AuthUserChangePasswordRequest", name="eve", password="other")
        refused(self, grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token",
                lambda: eve.get("eve"))
        refused(self, grpc.StatusCode.INVALID_ARGUMENT,
                "etcdserver: authentication failed, invalid user ID or password",
                lambda: connect("eve"))
        eve = connect("eve", password="other", member=2)
        self.assertEqual(eve.get("eve")[0], b"1")
        auth("UserRevokeRole", "AuthUserRevokeRoleRequest", name="eve", role="eves")
        refused(self, *self.DENIED, lambda: eve.get("eve"))
        auth("RoleDelete", "AuthRoleDeleteRequest", role="eves")
        auth("UserDelete", "AuthUserDeleteRequest", name="eve")
        self.assertNotIn("eve", auth("UserList", "AuthUserListRequest").users)
        refused(self, grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: invalid auth management",
                lambda: auth("UserDelete", "AuthUserDeleteRequest", name="root"))

    def test_a_token_is_known_to_every_member(self):
        for member in range(len(ENDPOINTS)):
            client = connect(member=member)
            client.metadata = self.ann.metadata
            client.put(f"ann/token/{member}", "1")
        found = [meta.key for _, meta in self.ann.get_prefix("ann/token/")]
        self.assertEqual(found, [f"ann/token/{m}".encode() for m in range(len(ENDPOINTS))])


class Members(Case):
    def list(self):
        return {member.name: member for member in self.root.members}

    def add(self, request):
        """Adds a member, as soon as those that are there have been connected for a few seconds."""
        stub, deadline = self.root.clusterstub, time.monotonic() + PATIENCE
        while True:
            try:
                return stub.MemberAdd(request, PATIENCE, metadata=self.root.metadata)
            except grpc.RpcError as error:
                unhealthy = error.details() == "etcdserver: unhealthy cluster"
                if not unhealthy or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def test_list(self):
        members = self.list()
        self.assertEqual(sorted(members), [f"m{i}" for i in range(len(ENDPOINTS))])
        for i, endpoint in enumerate(ENDPOINTS):
            self.assertEqual(list(members[f"m{i}"].client_urls), [f"https://{endpoint}"])
        ids = {member.id for member in members.values()}
        self.assertEqual(len(ids), len(ENDPOINTS))
        answering = [connect("root", member=i).put("ids", "1").header for i in range(len(ENDPOINTS))]
        self.assertEqual({header.member_id for header in answering}, ids)
        self.assertEqual(len({header.cluster_id for header in answering}), 1)

    def test_status(self):
        before = self.root.status()
        self.root.put("status", "1")
        after = self.root.status()
        self.assertRegex(after.version, r"^3\.\d+\.\d+$")
        self.assertIn(after.leader.id, {member.id for member in self.list().values()})
        self.assertGreater(after.raft_index, before.raft_index)
        self.assertGreater(after.db_size, 0)
        leaders = [connect("root", member=i).status().leader.id for i in range(len(ENDPOINTS))]
        self.assertEqual(set(leaders), {after.leader.id})

    def test_change(self):
        member = self.list()["m0"]
        urls = list(member.peer_urls)
        more = urls + ["https://127.0.0.1:1"]
        member.update(more)
        self.assertEqual(sorted(self.list()["m0"].peer_urls), sorted(more))
        member.update(urls)
        self.assertEqual(list(self.list()["m0"].peer_urls), urls)
        refused(self, grpc.StatusCode.NOT_FOUND, "etcdserver: member not found",
                lambda: self.root.remove_member(1))
        refused(self, *Users.DENIED, lambda: self.ann.remove_member(member.id))
        request = etcdrpc.MemberAddRequest(peerURLs=["https://127.0.0.1:2"])
        # What this client's messages do not have: a learner, so that nobody counts on it.
        request.MergeFromString(b"\x10\x01")
        added = self.add(request)
        self.assertEqual(list(added.member.peerURLs), ["https://127.0.0.1:2"])
        self.assertEqual(len(added.members), len(ENDPOINTS) + 1)
        self.assertIn("", self.list(), "who has not started has no name")
        self.root.remove_member(added.member.ID)
        self.assertEqual(len(self.list()), len(ENDPOINTS))


class Upkeep(Case):
    def test_snapshot(self):
        self.ann.put("ann/snapshot", "a value to be found in the file")
        file = io.BytesIO()
        self.root.snapshot(file)
        database, digest = file.getvalue()[:-32], file.getvalue()[-32:]
        self.assertEqual(hashlib.sha256(database).digest(), digest)
        self.assertEqual(database[16:20], BBOLT_MAGIC)
        self.assertIn(b"a value to be found in the file", database)
        refused(self, *Users.DENIED, lambda: self.ann.snapshot(io.BytesIO()))

    def test_alarm(self):
        alarm, = self.root.create_alarm(self.root.status().leader.id)
        self.addCleanup(self.root.disarm_alarm, alarm.member_id)
        self.assertEqual(alarm.alarm_type, etcdrpc.NOSPACE)
        self.assertEqual([a.member_id for a in self.root.list_alarms()], [alarm.member_id])
        full = (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
        refused(self, *full, lambda: self.ann.put("ann/full", "1"))
        self.assertIs(self.ann.delete("ann/full"), False)
        self.root.disarm_alarm(alarm.member_id)
        self.assertEqual(list(self.root.list_alarms()), [])
        self.ann.put("ann/full", "2")
        self.assertEqual(self.other.get("ann/full")[0], b"2")

    def test_defragment_and_hash(self):
        ask = lambda client: client.maintenancestub.Hash(
            etcdrpc.HashRequest(), PATIENCE, metadata=client.metadata).hash
        self.root.put("defragment", "1")
        before = ask(self.root)
        self.assertEqual(ask(self.root), before)
        self.root.defragment()
        self.assertEqual(self.root.get("defragment")[0], b"1")
        self.root.put("defragment", "2")
        self.assertNotEqual(ask(self.root), before)
        refused(self, *Users.DENIED, lambda: ask(self.ann))
        refused(self, *Users.DENIED, self.ann.defragment)
        # The client's own method forgets the token, and the certificate names nobody.
        refused(self, grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: user name not found",
                self.root.hash)


if __name__ == "__main__":
    make_users()
    unittest.main(verbosity=2)

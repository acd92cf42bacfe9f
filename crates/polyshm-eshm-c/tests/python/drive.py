"""Drives libeshm.so through ctypes, by declarations of its own.

    python3 drive.py LIBRARY NAME

Channels are called NAME-..., and their objects are removed also on failure.
"""

import atexit
import ctypes as c
import enum
import glob
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

LIBRARY, NAME = sys.argv[1:3]
PATIENCE = 60.0


# --- declarations, after sections 4.1 and 8 of the format -----------------------------------------


class Role(enum.IntEnum):
    MASTER = 0
    SLAVE = 1
    AUTO = 2


class Disconnect(enum.IntEnum):
    IMMEDIATELY = 0
    ON_TIMEOUT = 1
    NEVER = 2


class Code(enum.IntEnum):
    SUCCESS = 0
    INVALID_PARAM = -1
    NO_DATA = -9
    TIMEOUT = -10
    MASTER_STALE = -11
    BUFFER_TOO_SMALL = -13
    NOT_INITIALIZED = -14
    ROLE_MISMATCH = -15


TEXTS = {
    0: "Success",
    -1: "Invalid parameter",
    -2: "Failed to create shared memory",
    -3: "Failed to attach to shared memory",
    -4: "Failed to detach from shared memory",
    -5: "Failed to delete shared memory",
    -6: "Failed to initialize mutex",
    -7: "Failed to lock mutex",
    -8: "Failed to unlock mutex",
    -9: "No data available",
    -10: "Operation timed out",
    -11: "Master is stale",
    -12: "Buffer is full",
    -13: "Buffer too small",
    -14: "Not initialized",
    -15: "Role mismatch",
}

INTEGER, BOOLEAN, REAL, STRING, BINARY, EVENT, FUNCTION_CALL, IMAGE_FRAME = range(8)


class Config(c.Structure):
    _fields_ = [
        ("shm_name", c.c_char_p),
        ("role", c.c_int),
        ("disconnect_behavior", c.c_int),
        ("stale_threshold_ms", c.c_uint32),
        ("reconnect_wait_ms", c.c_uint32),
        ("reconnect_retry_interval_ms", c.c_uint32),
        ("max_reconnect_attempts", c.c_uint32),
        ("auto_cleanup", c.c_bool),
        ("use_threads", c.c_bool),
    ]


class Stats(c.Structure):
    _fields_ = [
        ("master_heartbeat", c.c_uint64),
        ("slave_heartbeat", c.c_uint64),
        ("master_pid", c.c_int32),
        ("slave_pid", c.c_int32),
        ("master_alive", c.c_bool),
        ("slave_alive", c.c_bool),
        ("stale_threshold", c.c_uint32),
        ("master_heartbeat_delta", c.c_uint64),
        ("slave_heartbeat_delta", c.c_uint64),
        ("m2s_write_count", c.c_uint64),
        ("m2s_read_count", c.c_uint64),
        ("s2m_write_count", c.c_uint64),
        ("s2m_read_count", c.c_uint64),
    ]


class Binary(c.Structure):
    _fields_ = [("data", c.POINTER(c.c_uint8)), ("len", c.c_size_t)]


lib = c.CDLL(LIBRARY)
P, INT, U32, SIZE, BYTE = c.c_void_p, c.c_int, c.c_uint32, c.c_size_t, c.c_uint8
FUNCTIONS = {
    "eshm_init": (P, [P]),
    "eshm_init_with_capacity": (P, [P, SIZE]),
    "eshm_destroy": (INT, [P]),
    "eshm_write": (INT, [P, c.c_char_p, SIZE]),
    "eshm_read": (INT, [P, P, SIZE]),
    "eshm_read_ex": (INT, [P, P, SIZE, P, U32]),
    "eshm_read_data": (INT, [P, P, P, INT, P, INT, P, U32]),
    "eshm_free_value": (None, [P, BYTE]),
    "eshm_update_heartbeat": (INT, [P]),
    "eshm_check_remote_alive": (INT, [P, P]),
    "eshm_get_stats": (INT, [P, P]),
    "eshm_get_role": (INT, [P, P]),
    "eshm_error_string": (c.c_char_p, [INT]),
    "dh_create": (P, []),
    "dh_destroy": (None, [P]),
    "dh_get_last_error": (c.c_char_p, []),
    "dh_encode": (INT, [P, P, P, P, INT, P, INT]),
    "dh_decode": (INT, [P, P, INT, P, P, INT, P, INT]),
    "dh_free_value": (None, [BYTE, P]),
}
for name, (result, arguments) in FUNCTIONS.items():
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


# --- a wrapper -------------------------------------------------------------------------------------


def object_file(name):
    return "/dev/shm/eshm_" + name


class Failed(Exception):
    """A function gave an error."""

    def __init__(self, code):
        super().__init__(lib.eshm_error_string(code).decode())
        self.code = code


def config(name, role=Role.AUTO, **others):
    settings = dict(
        shm_name=None if name is None else name.encode(),
        role=role,
        disconnect_behavior=Disconnect.ON_TIMEOUT,
        stale_threshold_ms=100,
        reconnect_wait_ms=5000,
        reconnect_retry_interval_ms=100,
        max_reconnect_attempts=50,
        auto_cleanup=True,
        use_threads=True,
    )
    settings.update(others)
    return Config(**settings)


class Channel:
    """One endpoint, closed at the end of a with block."""

    def __init__(self, name, role=Role.AUTO, capacity=None, **others):
        settings = config(name, role, **others)
        if capacity is None:
            self.handle = lib.eshm_init(c.byref(settings))
        else:
            self.handle = lib.eshm_init_with_capacity(c.byref(settings), capacity)
        if not self.handle:
            raise ConnectionError(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.handle:
            handle, self.handle = self.handle, None
            return lib.eshm_destroy(handle)

    def write(self, data):
        return lib.eshm_write(self.handle, data, len(data))

    def read(self, size=4096):
        buffer = c.create_string_buffer(size)
        length = lib.eshm_read(self.handle, buffer, size)
        if length < 0:
            raise Failed(length)
        return buffer.raw[:length]

    def read_ex(self, timeout_ms, size=4096):
        buffer, length = c.create_string_buffer(size), SIZE(77)
        code = lib.eshm_read_ex(self.handle, buffer, size, c.byref(length), timeout_ms)
        if code != 0:
            assert length.value == 77, "the length is untouched on errors"
            raise Failed(code)
        return buffer.raw[: length.value]

    def try_read(self):
        try:
            return self.read_ex(0)
        except Failed as error:
            if error.code == Code.NO_DATA:
                return None
            raise

    def stats(self):
        stats = Stats(master_pid=77)
        code = lib.eshm_get_stats(self.handle, c.byref(stats))
        found = {field: getattr(stats, field) for field, _ in Stats._fields_}
        if code != 0:
            assert not any(found.values()), "all zeros on errors"
            raise Failed(code)
        return found

    def role(self):
        role = INT(77)
        assert lib.eshm_get_role(self.handle, c.byref(role)) == 0
        return Role(role.value)

    def is_remote_alive(self):
        alive = c.c_bool(True)
        assert lib.eshm_check_remote_alive(self.handle, c.byref(alive)) == 0
        return alive.value

    def beat(self):
        return lib.eshm_update_heartbeat(self.handle)


class Arrays:
    """What items are read into."""

    def __init__(self, items, key_len):
        self.key_len, self.items = key_len, items
        self.types = (BYTE * items)(*[99] * items)
        self.texts = [c.create_string_buffer(key_len) for _ in range(items)]
        self.keys = (P * items)(*[c.addressof(text) for text in self.texts])
        self.values = (P * items)(*[1] * items)
        self.count = INT(-77)

    def take(self, count, free):
        """The items, whose values are freed."""
        items = []
        for kind, text, value in zip(self.types[:count], self.texts, self.values):
            read = {
                INTEGER: lambda at: c.c_int64.from_address(at).value,
                BOOLEAN: lambda at: c.c_bool.from_address(at).value,
                REAL: lambda at: c.c_double.from_address(at).value,
                STRING: lambda at: c.c_char_p(at).value,
                BINARY: lambda at: bytes(binary(at)),
            }.get(kind)
            items.append((kind, text.value, read(value) if read else value))
            free(kind, value)
        return items


def binary(at):
    found = Binary.from_address(at)
    assert found.data, "never NULL"
    return found.data[: found.len]


def read_data(channel, items=32, key_len=64, timeout_ms=0):
    arrays = Arrays(items, key_len)
    code = lib.eshm_read_data(
        channel.handle,
        arrays.types,
        arrays.keys,
        key_len,
        arrays.values,
        items,
        c.byref(arrays.count),
        timeout_ms,
    )
    return code, arrays


def read_items(channel, **others):
    code, arrays = read_data(channel, **others)
    if code != 0:
        raise Failed(code)
    return arrays.take(arrays.count.value, lambda kind, value: lib.eshm_free_value(value, kind))


class DataHandler:
    """Items to bytes and back."""

    def __init__(self):
        self.handle = lib.dh_create()
        assert self.handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.dh_destroy(self.handle)

    def encode(self, items, size=8192):
        places = []
        for _, kind, value in items:
            if kind == STRING:
                place = c.create_string_buffer(value)
            elif kind == BINARY:
                data = (BYTE * len(value))(*value)
                place = Binary(c.cast(data, c.POINTER(BYTE)), len(value))
                place.keep = data
            else:
                place = {BOOLEAN: c.c_bool, REAL: c.c_double}.get(kind, c.c_int64)(value)
            places.append(place)
        count = len(items)
        out = (BYTE * max(size, 1))()
        length = lib.dh_encode(
            self.handle,
            (BYTE * count)(*[kind for _, kind, _ in items]),
            (c.c_char_p * count)(*[key for key, _, _ in items]),
            (P * count)(*[c.addressof(place) for place in places]),
            count,
            out,
            size,
        )
        if length < 0:
            raise ValueError(lib.dh_get_last_error().decode())
        return bytes(out[:length])

    def decode(self, message, items=100, key_len=256):
        arrays = Arrays(items, key_len)
        count = lib.dh_decode(
            self.handle,
            message,
            len(message),
            arrays.types,
            arrays.keys,
            key_len,
            arrays.values,
            items,
        )
        if count < 0:
            raise ValueError(lib.dh_get_last_error().decode())
        return arrays.take(count, lib.dh_free_value)


# --- messages, after section 9 ---------------------------------------------------------------------


def primitive(tag, content):
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


def sequence(*parts):
    content = b"".join(parts)
    return b"\x30\x84" + struct.pack(">I", len(content)) + content


def message(*items):
    """Of types, keys and values; the values as they are on the wire."""
    types, keys, values = zip(*items) if items else ((), (), ())
    return sequence(
        sequence(*[primitive(2, bytes([kind])) for kind in types]),
        sequence(*[primitive(12, key) for key in keys]),
        sequence(*values),
    )


INTEGER_42 = (INTEGER, b"k", primitive(2, b"\x2a"))
IMAGE = (
    IMAGE_FRAME,
    b"image",
    sequence(*[primitive(2, b"\x01")] * 4, primitive(4, b"\x07")),
)
PYTHON_42 = bytes.fromhex("100f 1003020100 10030c016b 100302012a".replace(" ", ""))


# --- tests -----------------------------------------------------------------------------------------


def wait_until(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "never: " + what
        time.sleep(0.001)


class Case(unittest.TestCase):
    def setUp(self):
        self.name = "%s-%s" % (NAME, self.id().rsplit(".", 1)[-1].replace("test_", "")[:60])
        self.addCleanup(self.assert_nothing_left)

    def assert_nothing_left(self):
        self.assertFalse(os.path.exists(object_file(self.name)), "the object is left")

    def refused(self, call, *arguments, **others):
        """No endpoint, and the library says why, on one line."""
        with tempfile.TemporaryFile() as log:
            kept = os.dup(2)
            os.dup2(log.fileno(), 2)
            try:
                self.assertIsNone(call(*arguments, **others))
            except ConnectionError:
                pass
            finally:
                os.dup2(kept, 2)
                os.close(kept)
            log.seek(0)
            said = log.read().decode()
        self.assertRegex(said, r"\A\[ESHM\] [^\n]{20,}\n\Z")
        return said

    def fails(self, code, call, *arguments, **others):
        with self.assertRaises(Failed) as caught:
            call(*arguments, **others)
        self.assertEqual(caught.exception.code, code)


class Declarations(unittest.TestCase):
    def test_the_structures_are_as_documented(self):
        def offsets(structure):
            return [getattr(structure, field).offset for field, _ in structure._fields_]

        self.assertEqual(c.sizeof(Config), 40)
        self.assertEqual(offsets(Config), [0, 8, 12, 16, 20, 24, 28, 32, 33])
        self.assertEqual(c.sizeof(Stats), 80)
        self.assertEqual(
            offsets(Stats), [0, 8, 16, 20, 24, 25, 28, 32, 40, 48, 56, 64, 72]
        )

    def test_every_code_has_its_text(self):
        for code, text in TEXTS.items():
            self.assertEqual(lib.eshm_error_string(code).decode(), text)
        for code in (1, -16, 2**31 - 1, -(2**31)):
            self.assertEqual(lib.eshm_error_string(code), b"Unknown error")

    def test_the_file_is_what_linkers_and_loaders_look_for(self):
        soname, exported = dynamic(LIBRARY)
        self.assertEqual(soname, "libeshm.so.1")
        self.assertEqual(exported, set(FUNCTIONS))


class Roles(Case):
    def test_master_slave_and_auto(self):
        with Channel(self.name, Role.AUTO) as master:
            self.assertEqual(master.role(), Role.MASTER)
            for role in (Role.SLAVE, Role.AUTO):
                with Channel(self.name, role) as slave:
                    self.assertEqual(slave.role(), Role.SLAVE)
            self.assertTrue(os.path.exists(object_file(self.name)))
        self.assert_nothing_left()
        with Channel(self.name, Role.MASTER) as master:
            self.assertEqual(master.role(), Role.MASTER)

    def test_a_slave_needs_an_object(self):
        self.assertIn(self.name, self.refused(Channel, self.name, Role.SLAVE))

    def test_a_living_master_is_not_displaced(self):
        with Channel(self.name, Role.MASTER) as master:
            before = os.stat(object_file(self.name)).st_ino
            self.assertIn(str(os.getpid()), self.refused(Channel, self.name, Role.MASTER))
            self.assertEqual(os.stat(object_file(self.name)).st_ino, before)
            self.assertEqual(master.write(b"still here"), 0)

    def test_a_master_whose_role_was_taken(self):
        """By the original, which does not ask whether there is a master."""
        for role in (Role.MASTER, Role.AUTO):
            with Channel(self.name, role) as master:
                self.assertEqual(master.write(b"mine"), 0)
                with open(object_file(self.name), "r+b", buffering=0) as file:
                    # The master's pid: nobody's.
                    file.seek(24)
                    file.write(struct.pack("<i", 2**31 - 1))
                wait_until("it is noticed", lambda: master.write(b"x") == Code.ROLE_MISMATCH)
                self.assertEqual(master.beat(), Code.NOT_INITIALIZED)
            os.unlink(object_file(self.name))

    def test_what_no_endpoint_can_have_is_refused(self):
        for wrong in (
            dict(name=None),
            dict(name=""),
            dict(name="x" * 250),
            dict(role=3),
            dict(role=-1),
            dict(disconnect_behavior=3),
            dict(capacity=0),
            dict(capacity=2**30 + 1),
            dict(capacity=2**64 - 1),
        ):
            settings = dict(name=self.name, role=Role.MASTER)
            settings.update(wrong)
            self.refused(Channel, **settings)
            self.assert_nothing_left()
        self.refused(lib.eshm_init, None)
        settings = config(self.name)
        settings.shm_name = b"\xff"
        self.refused(lib.eshm_init, c.byref(settings))

    def test_the_name_is_copied(self):
        text = c.create_string_buffer(self.name.encode())
        settings = config(None, Role.MASTER)
        settings.shm_name = c.addressof(text)
        handle = lib.eshm_init(c.byref(settings))
        text[0] = b"X"
        self.assertTrue(os.path.exists(object_file(self.name)))
        self.assertEqual(lib.eshm_destroy(handle), 0)

    def test_the_object_stays_if_it_is_to(self):
        with Channel(self.name, Role.MASTER, auto_cleanup=False):
            pass
        os.unlink(object_file(self.name))

    def test_an_object_of_another_kind_is_left_alone(self):
        path = object_file(self.name)
        with open(path, "wb") as file:
            file.write(b"not a channel" * 1000)
        try:
            for role in Role:
                self.refused(Channel, self.name, role)
            with open(path, "rb") as file:
                self.assertEqual(file.read(), b"not a channel" * 1000)
        finally:
            os.unlink(path)


class Messages(Case):
    def setUp(self):
        super().setUp()
        self.master = Channel(self.name, Role.MASTER)
        self.addCleanup(self.master.close)
        self.slave = Channel(self.name, Role.SLAVE)
        self.addCleanup(self.slave.close)

    def test_both_directions(self):
        for sender, receiver in ((self.master, self.slave), (self.slave, self.master)):
            # A reader that polled before the first message gets it.
            self.assertIsNone(receiver.try_read())
            for data in (b"one", b"two\0and more", b"x" * 4096, b""):
                self.assertEqual(sender.write(data), 0)
                self.assertEqual(receiver.read(), data)
                self.assertIsNone(receiver.try_read())
                self.assertEqual(sender.write(data), 0)
                self.assertEqual(receiver.read_ex(1000), data)
                self.assertEqual(sender.write(data), 0)
                self.assertEqual(receiver.try_read(), data)

    def test_only_the_latest_is_kept(self):
        for number in range(10):
            self.assertEqual(self.master.write(b"%d" % number), 0)
        self.assertEqual(self.slave.read(), b"9")
        self.assertIsNone(self.slave.try_read())

    def test_what_was_written_before_is_not_delivered(self):
        self.assertEqual(self.master.write(b"early"), 0)
        with Channel(self.name, Role.SLAVE) as late:
            self.assertIsNone(late.try_read())
            self.assertEqual(self.master.write(b"later"), 0)
            self.assertEqual(late.try_read(), b"later")

    def test_a_read_ends_with_its_timeout(self):
        started = time.monotonic()
        self.fails(Code.TIMEOUT, self.slave.read_ex, 50)
        self.assertGreaterEqual(time.monotonic() - started, 0.05)
        started = time.monotonic()
        self.fails(Code.TIMEOUT, self.slave.read)
        self.assertGreaterEqual(time.monotonic() - started, 1.0)

    def test_the_length_is_not_needed(self):
        self.assertEqual(self.master.write(b"abc"), 0)
        buffer = c.create_string_buffer(8)
        self.assertEqual(lib.eshm_read_ex(self.slave.handle, buffer, 8, None, 0), 0)
        self.assertEqual(buffer.value, b"abc")

    def test_a_message_beyond_the_capacity_changes_nothing(self):
        self.assertEqual(self.master.write(b"before"), 0)
        self.assertEqual(self.master.write(b"x" * 4097), Code.BUFFER_TOO_SMALL)
        huge = lib.eshm_write(self.master.handle, b"x" * 4097, 2**64 - 1)
        self.assertEqual(huge, Code.BUFFER_TOO_SMALL)
        self.assertEqual(self.master.stats()["m2s_write_count"], 1)
        self.assertEqual(self.slave.read(), b"before")

    def test_a_message_beyond_the_buffer_is_not_taken(self):
        self.assertEqual(self.master.write(b"abcd"), 0)
        for timeout in (0, 1000):
            self.fails(Code.BUFFER_TOO_SMALL, self.slave.read_ex, timeout, size=3)
        self.fails(Code.BUFFER_TOO_SMALL, self.slave.read, size=3)
        self.assertEqual(self.slave.stats()["m2s_read_count"], 0)
        self.assertEqual(self.slave.read_ex(0, size=4), b"abcd")

    def poke(self, at, number):
        with open(object_file(self.name), "r+b", buffering=0) as file:
            file.seek(at)
            file.write(struct.pack("<I", number))

    def test_a_damaged_length_is_an_error(self):
        self.assertEqual(self.master.write(b"sound"), 0)
        for damaged in (4097, 2**32 - 1):
            self.poke(132, damaged)
            for timeout in (0, 1000):
                self.fails(Code.BUFFER_TOO_SMALL, self.slave.read_ex, timeout, size=5000)
        self.assertEqual(self.master.write(b"sound again"), 0)
        self.assertEqual(self.slave.read(), b"sound again")

    def test_a_writer_that_died_in_a_message_stops_nobody(self):
        self.assertEqual(self.master.write(b"whole"), 0)
        self.poke(128, 3)
        self.fails(Code.NO_DATA, self.slave.read_ex, 0)
        self.fails(Code.TIMEOUT, self.slave.read_ex, 20)
        self.assertEqual(self.master.write(b"next"), 0)
        self.assertEqual(self.slave.read(), b"next")

    def test_statistics(self):
        for _ in range(3):
            self.master.write(b"m")
        self.slave.write(b"s")
        self.slave.read()
        first = self.master.stats()
        wait_until("both beat", lambda: all(
            self.slave.stats()[side] > first[side] for side in ("master_heartbeat", "slave_heartbeat")
        ))
        second = self.master.stats()
        self.assertEqual(len(second), 13)
        for key, wanted in dict(
            master_pid=os.getpid(),
            slave_pid=os.getpid(),
            master_alive=True,
            slave_alive=True,
            stale_threshold=100,
            m2s_write_count=3,
            m2s_read_count=1,
            s2m_write_count=1,
            s2m_read_count=0,
        ).items():
            self.assertEqual(second[key], wanted, key)
        for side in ("master_heartbeat", "slave_heartbeat"):
            self.assertEqual(second[side + "_delta"], second[side] - first[side])
            self.assertGreater(second[side + "_delta"], 0)
            self.assertEqual(first[side + "_delta"], first[side])

    def test_null_is_refused(self):
        handle, some = self.slave.handle, c.create_string_buffer(64)
        refused = Code.INVALID_PARAM
        self.assertEqual(lib.eshm_write(handle, None, 0), refused)
        self.assertEqual(lib.eshm_read(handle, None, 1), refused)
        self.assertEqual(lib.eshm_read_ex(handle, None, 1, None, 0), refused)
        self.assertEqual(lib.eshm_check_remote_alive(handle, None), refused)
        self.assertEqual(lib.eshm_get_stats(handle, None), refused)
        self.assertEqual(lib.eshm_get_role(handle, None), refused)
        self.master.write(message(INTEGER_42))
        right = [handle, some, some, 8, some, 0, some, 0]
        for missing in (0, 1, 2, 4, 6):
            arguments = list(right)
            arguments[missing] = None
            self.assertEqual(lib.eshm_read_data(*arguments), refused)
        for length in (0, -1):
            arguments = list(right)
            arguments[3] = length
            self.assertEqual(lib.eshm_read_data(*arguments), refused)
        # None of these took the message.
        self.assertEqual(read_items(self.slave), [(INTEGER, b"k", 42)])

    def test_what_is_no_handle_is_refused(self):
        some, gone = c.create_string_buffer(80), self.slave.handle
        self.assertEqual(self.slave.close(), 0)
        data_handler = lib.dh_create()
        for handle in (None, 1, 0xDEADBEEF, c.addressof(some), 2**64 - 1, gone, data_handler):
            refused = Code.INVALID_PARAM
            self.assertEqual(lib.eshm_write(handle, b"x", 1), refused)
            self.assertEqual(lib.eshm_read(handle, some, 80), refused)
            self.assertEqual(lib.eshm_read_ex(handle, some, 80, None, 0), refused)
            arrays = [some, some, 8, some, 1, some, 0]
            self.assertEqual(lib.eshm_read_data(handle, *arrays), refused)
            self.assertEqual(lib.eshm_check_remote_alive(handle, some), refused)
            self.assertEqual(lib.eshm_get_stats(handle, some), refused)
            self.assertEqual(lib.eshm_get_role(handle, some), refused)
            self.assertEqual(lib.eshm_destroy(handle), refused)
            self.assertEqual(lib.eshm_update_heartbeat(handle), Code.NOT_INITIALIZED)
        lib.dh_destroy(data_handler)
        self.assertEqual(some.raw, b"\0" * 80)

    def test_several_slaves_each_get_the_message(self):
        with Channel(self.name, Role.SLAVE) as other:
            self.master.write(b"all")
            self.assertEqual((self.slave.read(), other.read()), (b"all", b"all"))
            self.assertEqual(self.master.stats()["m2s_read_count"], 2)
            for slave in (self.slave, other):
                self.assertEqual(slave.write(b"answer"), 0)
                self.assertEqual(self.master.read(), b"answer")

    def test_threads_do_not_wait_for_a_reader(self):
        results = []
        reader = threading.Thread(target=lambda: results.append(self.slave.read_ex(60000)))
        reader.start()
        for number in range(100):
            self.assertEqual(self.slave.write(b"%d" % number), 0)
        self.assertEqual(self.slave.stats()["s2m_write_count"], 100)
        self.assertFalse(results)
        self.master.write(b"at last")
        reader.join(PATIENCE)
        self.assertEqual(results, [b"at last"])

    def test_destroying_ends_a_read_of_another_thread(self):
        codes, started = [], threading.Event()

        def read():
            started.set()
            buffer = c.create_string_buffer(8)
            codes.append(lib.eshm_read_ex(self.slave.handle, buffer, 8, None, 2**32 - 1))

        reader = threading.Thread(target=read)
        reader.start()
        started.wait(PATIENCE)
        time.sleep(0.05)
        self.assertEqual(lib.eshm_destroy(self.slave.handle), 0)
        self.slave.handle = None
        reader.join(PATIENCE)
        # The second if the thread had not called yet.
        self.assertIn(codes, ([Code.NOT_INITIALIZED], [Code.INVALID_PARAM]))


class Capacities(Case):
    def test_both_sides_have_the_same(self):
        for capacity in (1, 64, 1 << 20):
            with Channel(self.name, Role.MASTER, capacity=capacity) as master:
                with Channel(self.name, Role.SLAVE, capacity=capacity) as slave:
                    data = os.urandom(capacity)
                    self.assertEqual(master.write(data), 0)
                    self.assertEqual(slave.read(capacity), data)
                    self.assertEqual(master.write(data + b"x"), Code.BUFFER_TOO_SMALL)
                self.refused(Channel, self.name, Role.SLAVE, capacity=capacity + 1)
                self.refused(Channel, self.name, Role.SLAVE)
            self.assert_nothing_left()

    def test_the_usual_one_is_that_of_the_original(self):
        with Channel(self.name, Role.MASTER):
            self.assertEqual(os.stat(object_file(self.name)).st_size, 8576)
            with Channel(self.name, Role.SLAVE, capacity=4096) as slave:
                self.assertEqual(slave.role(), Role.SLAVE)


class Items(Case):
    ALL = [
        (b"integer", INTEGER, -(2**63)),
        (b"boolean", BOOLEAN, True),
        (b"real", REAL, 23.5),
        (b"string", STRING, "grün".encode()),
        (b"binary", BINARY, bytes(range(256))),
        (b"nothing", BINARY, b""),
    ]

    def setUp(self):
        super().setUp()
        self.master = Channel(self.name, Role.MASTER)
        self.addCleanup(self.master.close)
        self.slave = Channel(self.name, Role.SLAVE)
        self.addCleanup(self.slave.close)

    def test_items_of_every_form(self):
        with DataHandler() as handler:
            self.assertEqual(self.master.write(handler.encode(self.ALL)), 0)
        items = read_items(self.slave)
        self.assertEqual(items, [(kind, key, value) for key, kind, value in self.ALL])

    def test_items_from_python_and_none_at_all(self):
        self.master.write(PYTHON_42)
        self.assertEqual(read_items(self.slave), [(INTEGER, b"k", 42)])
        self.master.write(message())
        self.assertEqual(read_items(self.slave), [])

    def test_a_read_waits_for_items(self):
        self.fails(Code.NO_DATA, read_items, self.slave)
        self.fails(Code.TIMEOUT, read_items, self.slave, timeout_ms=10)
        timer = threading.Timer(0.05, self.master.write, [message(INTEGER_42)])
        timer.start()
        self.assertEqual(read_items(self.slave, timeout_ms=60000), [(INTEGER, b"k", 42)])
        timer.join()

    def test_long_keys_are_cut(self):
        key = b"a key of some length"
        for key_len, wanted in ((64, key), (21, key), (20, key[:19]), (2, b"a"), (1, b"")):
            self.master.write(message((INTEGER, key, primitive(2, b"\x01"))))
            self.assertEqual(read_items(self.slave, key_len=key_len), [(INTEGER, wanted, 1)])

    def test_a_string_ends_where_c_ends_it(self):
        self.master.write(message((STRING, b"k", primitive(12, b"one\0two"))))
        self.assertEqual(read_items(self.slave), [(STRING, b"k", b"one")])

    def test_what_breaks_the_format_as_the_original_tolerates(self):
        loose = message((0, b"k", primitive(2, b"\x00\x07"))) + b"behind it"
        self.master.write(b"\xb0" + loose[1:])
        self.assertEqual(read_items(self.slave), [(INTEGER, b"k", 7)])
        self.master.write(message((STRING, b"\xff", primitive(12, b"\xfe"))))
        self.assertEqual(read_items(self.slave), [(STRING, b"\xff", b"\xfe")])

    def assert_taken(self):
        self.assertIsNone(self.slave.try_read())
        self.assertEqual(self.slave.stats()["m2s_read_count"], self.reads + 1)

    def refuse(self, data, code, **others):
        self.reads = self.slave.stats()["m2s_read_count"]
        self.assertEqual(self.master.write(data), 0)
        found, arrays = read_data(self.slave, **others)
        self.assertEqual(found, code)
        self.assert_taken()
        return arrays

    def test_too_many_items(self):
        three = message(*[INTEGER_42] * 3)
        for most in (2, 0):
            arrays = self.refuse(three, Code.BUFFER_TOO_SMALL, items=most)
            self.assertEqual(arrays.count.value, -77, "untouched")
        self.master.write(three)
        self.assertEqual(len(read_items(self.slave, items=3)), 3)

    def test_no_items(self):
        for data in (b"", b"no items", message(INTEGER_42)[:-1], b"\x30\x84\xff\xff\xff\xff"):
            arrays = self.refuse(data, Code.INVALID_PARAM)
            self.assertEqual(arrays.count.value, -77, "untouched")

    def test_items_without_a_form(self):
        arrays = self.refuse(message(INTEGER_42, IMAGE, INTEGER_42), Code.INVALID_PARAM)
        self.assertEqual(arrays.count.value, 3, "set before the values")
        self.assertEqual(list(arrays.values[:4]), [None, None, None, 1], "nothing to be freed")

    def test_a_key_without_a_buffer(self):
        self.master.write(message(INTEGER_42, INTEGER_42))
        arrays = Arrays(2, 8)
        arrays.keys[1] = None
        code = lib.eshm_read_data(
            self.slave.handle, arrays.types, arrays.keys, 8, arrays.values, 2, c.byref(arrays.count), 0
        )
        self.assertEqual(code, Code.INVALID_PARAM)
        self.assertEqual(list(arrays.values), [None, None])

    def test_errors_leak_no_values(self):
        memory = c.CDLL(None)
        if not hasattr(memory, "mallinfo2"):
            return

        class Info(c.Structure):
            _fields_ = [(name, SIZE) for name in (
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
            )]

        memory.mallinfo2.restype = Info
        rounds = 2000
        text = (STRING, b"text", b"\x0c\x82" + struct.pack(">H", 1000) + b"x" * 1000)
        data = message(text, text, text, IMAGE)

        def used():
            return memory.mallinfo2().uordblks

        for _ in range(10):
            self.refuse(data, Code.INVALID_PARAM)
        before = used()
        for _ in range(rounds):
            self.refuse(data, Code.INVALID_PARAM)
        # One value of each round would be twice as much.
        self.assertLess(used() - before, rounds * 500)


class Codec(unittest.TestCase):
    def setUp(self):
        self.handler = DataHandler()
        self.addCleanup(self.handler.__exit__)

    def test_the_bytes_are_those_of_the_format(self):
        self.assertEqual(
            self.handler.encode([(b"k", INTEGER, 42)]).hex(),
            "30840000001b" "308400000003020100" "3084000000030c016b" "30840000000302012a",
        )
        self.assertEqual(len(self.handler.encode([])), 24)
        for kind, value, wanted in (
            (INTEGER, -129, "0202ff7f"),
            (BOOLEAN, True, "0101ff"),
            (REAL, 23.5, "0909034037800000000000"),
            (REAL, 0.0, "0900"),
            (STRING, b"OK", "0c024f4b"),
            (BINARY, b"\x00\x07\x0e", "040300070e"),
        ):
            encoded = self.handler.encode([(b"k", kind, value)])
            self.assertTrue(encoded.hex().endswith(wanted), (kind, value))

    def test_items_come_back(self):
        for _ in range(2):
            encoded = self.handler.encode(Items.ALL)
            decoded = self.handler.decode(encoded)
            self.assertEqual(decoded, [(kind, key, value) for key, kind, value in Items.ALL])
        self.assertEqual(self.handler.decode(PYTHON_42), [(INTEGER, b"k", 42)])

    def test_a_type_without_a_form_is_decoded_to_null(self):
        decoded = self.handler.decode(message(INTEGER_42, IMAGE))
        self.assertEqual(decoded, [(INTEGER, b"k", 42), (IMAGE_FRAME, b"image", None)])

    def refuses(self, what, call, *arguments, **others):
        with self.assertRaises(ValueError) as caught:
            call(*arguments, **others)
        self.assertIn(what, str(caught.exception))

    def test_errors_say_why(self):
        for kind in (EVENT, FUNCTION_CALL, IMAGE_FRAME, 8, 255):
            self.refuses("type %d" % kind, self.handler.encode, [(b"k", kind, 0)])
        self.refuses("too small", self.handler.encode, [(b"k", INTEGER, 42)], size=32)
        self.assertEqual(len(self.handler.encode([(b"k", INTEGER, 42)], size=33)), 33)
        self.refuses("no key", self.handler.encode, [(None, INTEGER, 42)])
        self.refuses("too many", self.handler.decode, message(INTEGER_42, INTEGER_42), items=1)
        self.refuses("SEQUENCE", self.handler.decode, b"\x00\x00")
        self.refuses("ends early", self.handler.decode, message(INTEGER_42)[:-1])
        self.refuses("", self.handler.decode, b"")

    def test_null_and_what_is_no_handler_are_refused(self):
        some, handle = c.create_string_buffer(message(INTEGER_42), 64), self.handler.handle
        gone = lib.dh_create()
        lib.dh_destroy(gone)
        lib.dh_destroy(gone)
        lib.dh_destroy(None)
        encode, decode = [handle, some, some, some, 0, some, 64], [handle, some, 32, some, some, 8, some, 1]
        for function, right, pointers, lengths in (
            (lib.dh_encode, encode, (1, 2, 3, 5), (4, 6)),
            (lib.dh_decode, decode, (1, 3, 4, 6), (2, 5)),
        ):
            wrongs = [(0, None), (0, 1), (0, gone), (0, c.addressof(some))]
            wrongs += [(at, None) for at in pointers] + [(at, -1) for at in lengths]
            for at, wrong in wrongs:
                arguments = list(right)
                arguments[at] = wrong
                self.assertEqual(function(*arguments), -1, (function, at))
                self.assertIn(b"NULL", lib.dh_get_last_error())
        lib.dh_free_value(BINARY, None)
        lib.dh_free_value(IMAGE_FRAME, None)

    def test_each_thread_has_an_error_of_its_own(self):
        self.refuses("SEQUENCE", self.handler.decode, b"\x00\x00")
        seen = []
        thread = threading.Thread(target=lambda: seen.append(lib.dh_get_last_error()))
        thread.start()
        thread.join(PATIENCE)
        self.assertEqual(seen, [b""])
        self.assertIn(b"SEQUENCE", lib.dh_get_last_error())


class Liveness(Case):
    def test_the_other_side_is_seen_and_missed(self):
        with Channel(self.name, Role.MASTER) as master:
            self.assertFalse(master.is_remote_alive(), "nobody was there yet")
            with Channel(self.name, Role.SLAVE) as slave:
                wait_until("the master sees the slave", master.is_remote_alive)
                wait_until("the slave sees the master", slave.is_remote_alive)
                self.assertEqual((master.beat(), slave.beat()), (0, 0))
            wait_until("the master misses the slave", lambda: not master.is_remote_alive())
            self.assertEqual(master.write(b"goes on"), 0)
            with Channel(self.name, Role.SLAVE):
                wait_until("the master sees another slave", master.is_remote_alive)

    def test_hearts_that_beat_by_hand(self):
        with Channel(self.name, Role.MASTER, use_threads=False) as master:
            with Channel(self.name, Role.SLAVE, use_threads=False) as slave:
                for beats in range(1, 4):
                    self.assertEqual((master.beat(), slave.beat()), (0, 0))
                    stats = master.stats()
                    found = stats["master_heartbeat"], stats["slave_heartbeat"]
                    self.assertEqual(found, (beats, beats))
                # A pause longer than the threshold makes the other side stale.
                wait_until("both are alive", lambda: (master.beat(), slave.beat()) == (0, 0)
                           and master.is_remote_alive() and slave.is_remote_alive())
                self.assertEqual(master.write(b"by hand"), 0)
                self.assertEqual(slave.read(), b"by hand")

    def test_the_creators_threshold_counts(self):
        with Channel(self.name, Role.MASTER, stale_threshold_ms=70):
            with Channel(self.name, Role.SLAVE, stale_threshold_ms=5) as slave:
                self.assertEqual(slave.stats()["stale_threshold"], 70)

    def test_who_disconnects_immediately(self):
        master = Channel(self.name, Role.MASTER)
        with Channel(
            self.name, Role.SLAVE, disconnect_behavior=Disconnect.IMMEDIATELY
        ) as slave:
            wait_until("the slave sees the master", slave.is_remote_alive)
            self.assertEqual(master.close(), 0)
            wait_until("the slave misses the master", lambda: not slave.is_remote_alive())
            self.fails(Code.MASTER_STALE, slave.read)
            self.fails(Code.MASTER_STALE, slave.read_ex, 0)
            self.fails(Code.MASTER_STALE, read_items, slave)
            self.assertEqual(slave.write(b"nobody reads it"), 0)
            self.assertEqual(slave.stats()["s2m_write_count"], 1)
            self.assertEqual(slave.beat(), 0)

    def test_a_master_that_disconnects_immediately_goes_on_with_the_next_slave(self):
        with Channel(
            self.name,
            Role.MASTER,
            disconnect_behavior=Disconnect.IMMEDIATELY,
            stale_threshold_ms=20,
        ) as master:
            time.sleep(0.1)
            self.assertIsNone(master.try_read(), "nobody was lost yet")
            for _ in range(2):
                with Channel(self.name, Role.SLAVE) as slave:
                    wait_until("the master sees the slave", master.is_remote_alive)
                    self.assertEqual(slave.write(b"here"), 0)
                    self.assertEqual(master.read(), b"here")
                wait_until("the master misses the slave", lambda: not master.is_remote_alive())
                self.fails(Code.MASTER_STALE, master.read_ex, 0)
                self.assertEqual(master.write(b"into the void"), 0)

    def test_who_gives_up(self):
        master = Channel(self.name, Role.MASTER)
        with Channel(
            self.name, Role.SLAVE, reconnect_retry_interval_ms=1, max_reconnect_attempts=2
        ) as slave:
            wait_until("the slave sees the master", slave.is_remote_alive)
            self.assertEqual(master.close(), 0)
            wait_until("the slave is detached", lambda: slave.beat() == Code.NOT_INITIALIZED)
            time.sleep(0.05)
            for read in (slave.read, lambda: slave.read_ex(0), lambda: read_items(slave)):
                self.fails(Code.TIMEOUT, read)
            self.assertEqual(slave.write(b"x"), Code.TIMEOUT)
            self.assertEqual(slave.write(b"x" * 5000), Code.TIMEOUT)
            self.fails(Code.NOT_INITIALIZED, slave.stats)
            self.assertFalse(slave.is_remote_alive())
            self.assertEqual(slave.role(), Role.SLAVE)

    def test_a_forked_child_has_nothing_to_clean_up(self):
        with Channel(self.name, Role.MASTER) as master, Channel(self.name, Role.SLAVE) as slave:
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    os._exit(77 if lib.eshm_destroy(master.handle) == 0 else 1)
                status = os.waitpid(child, 0)[1]
                self.assertTrue(os.WIFEXITED(status) and os.WEXITSTATUS(status) == 77, status)
                self.assertEqual(master.write(b"still here"), 0)
                self.assertEqual(slave.read(), b"still here")
            self.assertTrue(os.path.exists(object_file(self.name)))

    def run_master(self):
        process = subprocess.Popen(
            [sys.executable, "-B", __file__, LIBRARY, self.name, "master"], stdout=subprocess.PIPE
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"writing\n")
        return process

    def test_a_slave_finds_the_next_master_by_itself(self):
        master = self.run_master()
        with Channel(
            self.name,
            Role.SLAVE,
            reconnect_wait_ms=0,
            reconnect_retry_interval_ms=10,
            max_reconnect_attempts=0,
        ) as slave:
            for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                def read_of(process):
                    """The next message of that process."""
                    until = time.monotonic() + PATIENCE
                    while time.monotonic() < until:
                        try:
                            pid, number = struct.unpack("<QQ", slave.read())
                        except Failed as error:
                            self.assertEqual(error.code, Code.TIMEOUT)
                            continue
                        if pid == process.pid:
                            return number
                    self.fail("no message")

                first = read_of(master)
                self.assertGreater(read_of(master), first)
                wait_until("the slave may write", lambda: slave.write(b"here") == 0)
                wait_until("the slave is attached", lambda: slave.beat() == 0)
                # Terminated, it closes its endpoint; killed, it leaves it as it is.
                master.send_signal(end)
                self.assertEqual(master.wait(PATIENCE), -end if end == signal.SIGKILL else 0)
                wait_until("the slave misses it", lambda: slave.beat() == Code.NOT_INITIALIZED)
                self.assertEqual(slave.write(b"lost"), Code.TIMEOUT)
                master = self.run_master()
            self.assertGreater(read_of(master), 0)
            master.send_signal(signal.SIGTERM)
            self.assertEqual(master.wait(PATIENCE), 0)
            # It took over while a slave was there, and left the object to it: the next tidies up.
        if os.path.exists(object_file(self.name)):
            Channel(self.name, Role.MASTER).close()


def master():
    """Another process: writes until it is stopped."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with Channel(NAME, Role.MASTER) as channel:
        print("writing", flush=True)
        number = 0
        while not stopped.is_set():
            number += 1
            assert channel.write(struct.pack("<QQ", os.getpid(), number)) == 0
            time.sleep(0.002)


def dynamic(path):
    """The name of a 64-bit little-endian ELF library, and the functions that it exports."""
    with open(path, "rb") as file:
        image = file.read()
    assert image[:6] == b"\x7fELF\x02\x01"
    sections_at, = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, sections_at + at * size) for at in range(count)]

    def content(section):
        return image[section[4] : section[4] + section[5]]

    def text(strings, at):
        return strings[at : strings.index(b"\0", at)].decode()

    soname, exported = None, set()
    for section in sections:
        kind, strings = section[1], content(sections[section[6]])
        if kind == 6:  # dynamic
            for tag, value in struct.iter_unpack("<qQ", content(section)):
                if tag == 14:
                    soname = text(strings, value)
        elif kind == 11:  # dynamic symbols
            for at, info, _, index, _, _ in struct.iter_unpack("<IBBHQQ", content(section)):
                # Global or weak, and defined here.
                if info >> 4 in (1, 2) and index != 0:
                    exported.add(text(strings, at))
    return soname, exported


def tidy_up():
    for path in glob.glob(glob.escape(object_file(NAME)) + "*"):
        os.unlink(path)


if __name__ == "__main__":
    if sys.argv[3:] == ["master"]:
        master()
    else:
        atexit.register(tidy_up)
        outcome = unittest.main(argv=sys.argv[:1], exit=False).result
        if not outcome.wasSuccessful():
            sys.exit(1)
        assert outcome.testsRun > 0 and not outcome.skipped
        print("all is well")

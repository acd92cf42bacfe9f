"""A process that speaks the slot format as the original does, for the tests.

It keeps to docs/protocols/slots.md, sections 1 to 5, and to the order of loads
and stores there, defects included (section 7): what it accepts may be torn, and
its FIFO indices go back and forth.

usage: peer.py [tracked]

Commands come line by line on standard input; each is answered with one line,
"ok ..." or "error ...". Unless it is `tracked`, the interpreter's resource
tracker is told to leave the segments alone.
"""

import json
import re
import struct
import sys
import time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy

TRUNCATED, UNWRITTEN, MODIFIED = 1, 2, 4
WRITE_IDX, READ_IDX, COUNT, META = 0, 8, 16, 24
RETRY = 100e-6

TEXT = re.compile(r"str\[([1-9][0-9]*)\]$")
ARRAY = re.compile(r"((?:float|u?int)[0-9]+|bool)\[([0-9,]+)\]$")
SCALARS = {"float": ("<d", float), "int": ("<i", int), "bool": ("<?", bool)}


def up(size):
    return (size + 7) // 8 * 8


class Field:
    """One field: its place in a slot, and its value's way in and out."""

    def __init__(self, name, annotation):
        self.name, self.at, self.dtype = name, None, None
        text, array = TEXT.match(annotation), ARRAY.match(annotation)
        self.chars = int(text[1]) if text else None
        if text:
            self.size = 4 + 4 * self.chars
        elif array:
            self.dtype = numpy.dtype(array[1])
            self.shape = tuple(int(item) for item in array[2].split(","))
            self.items = int(numpy.prod(self.shape))
            self.size = self.items * self.dtype.itemsize
        else:
            self.form, self.convert = SCALARS[annotation]
            self.size = struct.calcsize(self.form)

    def store(self, buf, at, value):
        """Stores a value; gives whether it was cut or padded."""
        if self.chars is not None:
            data = value[: self.chars].encode()
            buf[at : at + 4] = len(data).to_bytes(4, "little")
            buf[at + 4 : at + 4 + len(data)] = data
            return len(value) > self.chars
        if self.dtype is None:
            buf[at : at + self.size] = struct.pack(self.form, self.convert(value))
            return False
        value = numpy.asarray(value, dtype=self.dtype)
        flat = value.ravel()
        if flat.size != self.items:
            flat = numpy.zeros(self.items, self.dtype)
            flat[: value.size] = value.ravel()[: self.items]
        buf[at : at + self.size] = flat.tobytes()
        return value.shape != self.shape

    def load(self, buf, at):
        if self.chars is not None:
            length = int.from_bytes(buf[at : at + 4], "little")
            return bytes(buf[at + 4 : at + 4 + length]).decode(errors="ignore")
        data = bytes(buf[at : at + self.size])
        if self.dtype is None:
            return struct.unpack(self.form, data)[0]
        return numpy.frombuffer(data, self.dtype).reshape(self.shape)


class Segment:
    """A segment, attached or created."""

    def __init__(self, name, slots, schema, create=False, delay=0.0, tracked=False):
        pairs = [pair.split(":") for pair in schema.split(";")]
        self.fields = [Field(field, annotation) for field, annotation in pairs]
        at = up(8 + len(self.fields))
        for field in self.fields:
            field.at, at = at, at + field.size
        self.slots, self.slot_size = slots, up(at + 8)
        self.meta = META if slots > 1 else 0
        size = self.meta + slots * self.slot_size
        self.staged, self.dirty = {}, False
        self.memory = SharedMemory(name, create=create, size=size if create else 0)
        if not tracked:
            resource_tracker.unregister(self.memory._name, "shared_memory")
        self.buf = self.memory.buf
        if create:
            self.initialise(delay)

    def initialise(self, delay):
        time.sleep(delay)
        for at in range(0, self.meta, 8):
            self.store(at, 0)
        for slot in range(self.slots):
            base = self.base(slot)
            self.store(base, 0)
            for index in range(len(self.fields)):
                self.buf[base + 8 + index] = UNWRITTEN
                time.sleep(delay)
            self.store(base + self.slot_size - 8, 0)

    def base(self, slot):
        return self.meta + slot * self.slot_size

    # The eight bytes of a word go in and out at once.

    def load(self, at):
        return int.from_bytes(self.buf[at : at + 8], "little")

    def store(self, at, value):
        self.buf[at : at + 8] = value.to_bytes(8, "little")

    def write_slot(self, slot, values):
        base = self.base(slot)
        number = self.load(base) + 1
        self.store(base, number)
        for index, field in enumerate(self.fields):
            status = self.buf[base + 8 + index]
            if field.name in values:
                cut = field.store(self.buf, base + field.at, values[field.name])
                status = (status & ~(TRUNCATED | UNWRITTEN)) | MODIFIED | (TRUNCATED if cut else 0)
            else:
                status &= ~MODIFIED
            self.buf[base + 8 + index] = status
        self.store(base + self.slot_size - 8, number)

    def read_slot(self, slot):
        """Values and statuses; `None` when the sequence words differ."""
        base = self.base(slot)
        begin = self.load(base)
        found = [
            (self.buf[base + 8 + index], field.load(self.buf, base + field.at))
            for index, field in enumerate(self.fields)
        ]
        end = self.load(base + self.slot_size - 8)
        return found if begin == end else None

    # One slot.

    def write(self, values):
        self.write_slot(0, values)

    def read(self, timeout=0.0, reset=False):
        start = time.time()
        while True:
            found = self.read_slot(0)
            if found is not None:
                break
            if timeout == 0 or time.time() - start >= timeout:
                return None
            time.sleep(RETRY)
        if reset:
            for index in range(len(self.fields)):
                self.buf[8 + index] &= ~MODIFIED
        return found

    # A FIFO.

    def stage(self, values):
        self.staged.update(values)
        self.dirty = True

    def finalize(self):
        if not self.dirty:
            return
        write, read, count = self.load(WRITE_IDX), self.load(READ_IDX), self.load(COUNT)
        self.write_slot(write % self.slots, self.staged)
        write += 1
        if count < self.slots:
            count += 1
        else:
            read += 1
        self.store(WRITE_IDX, write)
        self.store(READ_IDX, read)
        self.store(COUNT, count)
        self.staged, self.dirty = {}, False

    def take(self, timeout=0.0, latest=False):
        start = time.time()
        while True:
            write, read, count = self.load(WRITE_IDX), self.load(READ_IDX), self.load(COUNT)
            if count == 0:
                if timeout == 0 or time.time() - start >= timeout:
                    return None
                time.sleep(RETRY)
                continue
            if latest and count > 1:
                read, count = write - 1, 1
            found = self.read_slot(read % self.slots)
            if found is None:
                time.sleep(RETRY)
                continue
            self.store(WRITE_IDX, write)
            self.store(READ_IDX, read + 1)
            self.store(COUNT, count - 1)
            return found


# Records of which one that is torn, or mixed of two, differs from all.


def floats(number):
    return {"a": number, "b": -number, "c": number * 0.5, "d": number + 0.25}


def floats_number(values):
    a, b, c, d = values
    return int(a) if (b, c, d) == (-a, a * 0.5, a + 0.25) else None


def image(number):
    pixels = numpy.full((480, 640, 3), number * 101 % 256, numpy.uint8)
    return {"frame_id": number, "timestamp": number * 0.5, "image": pixels}


def image_number(values):
    frame, timestamp, pixels = values
    good = timestamp == frame * 0.5 and bool((pixels == frame * 101 % 256).all())
    return frame if good else None


KINDS = {"floats": (floats, floats_number), "image": (image, image_number)}


def pace(kind, seconds, rate, most):
    """Numbers from 1 on, so many per second; 0: as fast as it goes, and after
    each 20 images a rest of a millisecond, in which a reader gets a whole one."""
    start = time.perf_counter()
    for number in range(1, most + 1):
        now = time.perf_counter() - start
        if now >= seconds:
            return
        if rate == 0 and kind == "image" and number % 20 == 0:
            time.sleep(1e-3)
        if rate > 0 and number / rate > now:
            time.sleep(number / rate - now)
        yield number


class Peer:
    def __init__(self, tracked):
        self.tracked, self.segment, self.finalized = tracked, None, 0

    def create(self, name, slots, schema, delay="0"):
        self.segment = Segment(name, int(slots), schema, True, float(delay), self.tracked)

    def attach(self, name, slots, schema):
        self.segment = Segment(name, int(slots), schema, tracked=self.tracked)

    def close(self):
        self.segment.buf = None
        self.segment.memory.close()

    def unlink(self):
        # It unregisters the name, which was done.
        resource_tracker.register(self.segment.memory._name, "shared_memory")
        self.segment.memory.unlink()

    def write(self, values):
        self.segment.write(from_json(values))

    def stage(self, values):
        self.segment.stage(from_json(values))

    def finalize(self):
        self.segment.finalize()

    def read(self, timeout="0", reset="no"):
        return to_json(self.segment, self.segment.read(float(timeout), reset == "reset"))

    def take(self, timeout="0", latest="no"):
        return to_json(self.segment, self.segment.take(float(timeout), latest == "latest"))

    def write_many(self, kind, seconds, rate):
        """Gives how many were written."""
        record, number = KINDS[kind][0], 0
        for number in pace(kind, float(seconds), float(rate), sys.maxsize):
            self.segment.write(record(number))
        return number

    def finalize_many(self, kind, seconds, rate, most):
        """Goes on with the numbers; gives the last."""
        record, before = KINDS[kind][0], self.finalized
        for number in pace(kind, float(seconds), float(rate), int(most)):
            self.finalized = before + number
            self.segment.stage(record(self.finalized))
            self.segment.finalize()
        return self.finalized

    def watch(self, kind, seconds):
        """Gives how often the slot was accepted and rejected, how often what was
        accepted was torn, and how many records were seen."""
        number_of = KINDS[kind][1]
        accepted = rejected = torn = seen = last = 0
        end = time.perf_counter() + float(seconds)
        while time.perf_counter() < end:
            found = self.segment.read()
            if found is None:
                rejected += 1
                continue
            accepted += 1
            statuses = {status for status, _ in found}
            if statuses == {UNWRITTEN}:
                continue
            number = number_of([value for _, value in found]) if statuses == {MODIFIED} else None
            # Records are written one after the other.
            if number is None or number < last:
                torn += 1
                continue
            seen += number != last
            last = number
        return f"{accepted} {rejected} {torn} {seen}"

    def take_many(self, kind, count, timeout):
        """Takes records until that number; gives how many came, and how many were
        torn, out of order, and there before."""
        number_of = KINDS[kind][1]
        taken = torn = disordered = repeated = last = 0
        seen = set()
        while last < int(count):
            found = self.segment.take(float(timeout))
            if found is None:
                break
            taken += 1
            number = number_of([value for _, value in found])
            if number is None:
                torn += 1
                continue
            repeated += number in seen
            disordered += number != last + 1
            seen.add(number)
            last = number
        return f"{taken} {torn} {disordered} {repeated}"


def from_json(text):
    """Floats come as their bits, arrays as their bytes."""

    def value(of):
        if not isinstance(of, dict):
            return of
        if "bits" in of:
            return struct.unpack("<d", struct.pack("<Q", of["bits"]))[0]
        data = numpy.frombuffer(bytes.fromhex(of["hex"]), of["dtype"])
        return data.reshape(of["shape"])

    return {name: value(of) for name, of in json.loads(text).items()}


def to_json(segment, found):
    def value(of):
        if isinstance(of, float):
            return {"bits": struct.unpack("<Q", struct.pack("<d", of))[0]}
        if isinstance(of, numpy.ndarray):
            return {"dtype": of.dtype.name, "shape": list(of.shape), "hex": of.tobytes().hex()}
        return of

    if found is None:
        return "null"
    named = zip(segment.fields, found)
    return json.dumps({field.name: [status, value(of)] for field, (status, of) in named})


def main():
    peer = Peer("tracked" in sys.argv[1:])
    print("ok", flush=True)
    for line in sys.stdin:
        command, *arguments = line.rstrip("\n").split("\t")
        try:
            answer = getattr(peer, command)(*arguments)
        except Exception as error:  # Whatever it is, the test wants to know.
            print("error", type(error).__name__, str(error).replace("\n", " "), flush=True)
        else:
            print("ok" if answer is None else f"ok {answer}", flush=True)


main()

"""One side of a buffer, spoken by the Python package, driven line by line.

usage: peer.py reader NAME METADATA_SIZE PAYLOAD_SIZE
       peer.py writer NAME

Reads commands from standard input, answers each with one line: "ok ..." or
"error EXCEPTION message". Frame data: byte i of frame s is (i + s) mod 256.
"""

import random
import sys
import time

from zerobuffer import BufferConfig, Reader, Writer

TABLE = bytes(range(256)) * 2


def pattern(length, sequence):
    start = sequence % 256
    whole = TABLE[start : start + 256]
    return (whole * (length // 256 + 1))[:length]


def lengths(seed, count, low, high):
    rng = random.Random(seed)
    return [rng.randint(low, high) for _ in range(count)]


class ReaderSide:
    def __init__(self, name, metadata_size, payload_size):
        config = BufferConfig(metadata_size=int(metadata_size), payload_size=int(payload_size))
        self.reader = Reader(name, config)
        self.held = []

    def meta(self):
        data = self.reader.get_metadata()
        return "none" if data is None else bytes(data).hex()

    def _take(self, timeout):
        frame = self.reader.read_frame(timeout=float(timeout))
        if frame is None:
            return None, "timeout"
        view = frame.data
        good = bytes(view) == pattern(frame.size, frame.sequence)
        view.release()
        return frame, f"{frame.sequence} {frame.size} {'good' if good else 'BAD'}"

    def read(self, timeout):
        frame, text = self._take(timeout)
        if frame is not None:
            self.reader.release_frame(frame)
        return text

    def hold(self, timeout):
        frame, text = self._take(timeout)
        if frame is not None:
            self.held.append(frame)
        return text

    def release(self):
        self.reader.release_frame(self.held.pop(0))
        return ""

    def stream(self, count, seed, low, high, first):
        expected = lengths(int(seed), int(count), int(low), int(high))
        for index, length in enumerate(expected):
            want = f"{int(first) + index} {length} good"
            got = self.read(5.0)
            if got != want:
                return f"BAD frame {index}: wanted {want}, got {got}"
        return f"all {len(expected)}"

    def close(self):
        self.reader.close()
        return ""


class WriterSide:
    def __init__(self, name):
        self.writer = Writer(name)
        self.next = 1

    def meta(self, text):
        self.writer.set_metadata(bytes.fromhex(text))
        return ""

    def write(self, length):
        self.writer.write_frame(pattern(int(length), self.next))
        self.next += 1
        return str(self.next - 1)

    def zwrite(self, length):
        view = self.writer.get_frame_buffer(int(length))
        view[:] = pattern(int(length), self.next)
        view.release()
        self.writer.commit_frame()
        self.next += 1
        return str(self.next - 1)

    def stream(self, count, seed, low, high, zero_copy):
        send = self.zwrite if int(zero_copy) else self.write
        for length in lengths(int(seed), int(count), int(low), int(high)):
            send(length)
        return "all"

    def close(self):
        self.writer.close()
        return ""


def main():
    side = {"reader": ReaderSide, "writer": WriterSide}[sys.argv[1]]
    try:
        peer = side(*sys.argv[2:])
    except Exception as error:  # the test decides what is an error
        print(f"error {type(error).__name__} {error}", flush=True)
        return
    print("ok", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        started = time.monotonic()
        try:
            answer = "ok " + getattr(peer, command)(*arguments)
        except Exception as error:
            answer = f"error {type(error).__name__} {error}"
        taken = time.monotonic() - started
        print(f"{answer.strip()}\t{taken:.3f}", flush=True)


main()

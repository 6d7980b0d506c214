"""One upload for a conference and a broadcast, through the kernel's token bucket filter.

    cargo build --release
    python3 tests/interop/uplink.py [--quintet target/release/quintet] [--rate 3mbit] [--conference 2] [--viewers 6]

Two network namespaces are two machines with a cable between them. On one, a program opens a conference and a
broadcast; its upload has that rate and a queue of 300 ms. All others are on the other one. Each line is of
three seconds. Needs Linux, root and iproute2; the kernel has no netem, so the delay is that of the queue.
"""

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time

SECONDS_PER_LINE = 3
HOST = "http://192.168.5.7:7340/s/"


class Machine:
    """A network namespace, until it is closed."""

    def __init__(self):
        command = "ip link set lo up && echo ready && exec sleep infinity"
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", command], stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline().strip() != "ready":
            raise SystemExit("network namespaces need root and iproute2")
        self.enter = ["nsenter", "--net", "--target", str(self.holder.pid), "--"]

    def run(self, line):
        return subprocess.run(self.enter + line.split(), check=True, capture_output=True, text=True).stdout

    def queue(self):
        """The bytes that its queue has sent, and the packets that it has dropped."""
        text = self.run("tc -s qdisc show dev eth0")
        return int(text.split("Sent ")[1].split()[0]), int(text.split("dropped ")[1].split(",")[0])

    def close(self):
        self.holder.kill()


class Program:
    """A running program and the events that it prints."""

    def __init__(self, machine, quintet, name, arguments):
        home = tempfile.mkdtemp()
        folders = {name: home for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")}
        command = machine.enter + [quintet] + arguments + ["--json", "--speaker", "none", "--name", name]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | folders)
        self.name, self.events, self.before = name, [], (0, 0)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def stats(self):
        return next((event for event in reversed(self.events) if event["event"] == "stats"), {"sessions": []})

    def received(self):
        """Frames a second and milliseconds of concealed audio of the opener since the last call."""
        people = [one for session in self.stats()["sessions"] for one in session["participants"] if one["name"] == "Olga"]
        now = (people[0]["video"]["decoded"], people[0]["audio"]["concealed_ms"]) if people else (0, 0)
        (frames, concealed), self.before = self.before, now
        return f"{self.name} {(now[0] - frames) / SECONDS_PER_LINE:.0f} fps, {now[1] - concealed} ms"


def targets(opener):
    """What each peer of a program may get, in kbit/s."""
    people = [one for session in opener.stats()["sessions"] for one in session["participants"]]
    pairs = [entry for one in people for entry in one.get("rtc", []) if entry["type"] == "candidate-pair"]
    return [round(pair.get("availableOutgoingBitrate", 0) / 1000) for pair in pairs]


def start(options):
    opener_machine, others_machine = Machine(), Machine()
    opener_machine.run(f"ip link add eth0 type veth peer name eth0 netns {others_machine.holder.pid}")
    for machine, address in ((opener_machine, 7), (others_machine, 8)):
        machine.run(f"ip addr add 192.168.5.{address}/24 dev eth0")
        machine.run("ip link set eth0 up")
    opener_machine.run(f"tc qdisc add dev eth0 root tbf rate {options.rate} burst 3000 latency 300ms")
    sessions = ["--kind", "audio+video/many-to-many", "--id", "conference", "--kind", "audio+video/one-way", "--id", "show"]
    sources = ["--camera", "pattern:1280x720@30", "--microphone", "tone:440"]
    opener = Program(opener_machine, options.quintet, "Olga", ["open", "--listen", "0.0.0.0"] + sessions + sources)
    while sum(event["event"] == "opened" for event in opener.events) < 2:
        time.sleep(0.1)
    small = ["--camera", "pattern:320x180@10", "--microphone", "tone:300"]
    guests = [Program(others_machine, options.quintet, f"guest {number}", ["join", HOST + "conference"] + small)
              for number in range(options.conference)]
    viewers = [Program(others_machine, options.quintet, f"viewer {number}", ["join", HOST + "show"])
               for number in range(options.viewers)]
    return (opener_machine, others_machine), opener, guests + viewers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quintet", default="target/release/quintet")
    parser.add_argument("--rate", default="3mbit")
    parser.add_argument("--conference", type=int, default=2)
    parser.add_argument("--viewers", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=45)
    options = parser.parse_args()
    machines, opener, others = start(options)
    before = machines[0].queue()
    for second in range(SECONDS_PER_LINE, options.seconds + 1, SECONDS_PER_LINE):
        time.sleep(SECONDS_PER_LINE)
        now = machines[0].queue()
        used = (now[0] - before[0]) * 8 / 1000 / SECONDS_PER_LINE
        received = "; ".join(other.received() for other in others)
        print(f"{second:3} s: {used:.0f} kbit/s, {now[1] - before[1]} dropped, targets {targets(opener)}; {received}", flush=True)
        before = now
    told = [event["event"] for event in opener.events if event["event"].startswith("upload-")]
    print(f"told: {told}")
    for program in [opener, *others]:
        program.process.terminate()
    for machine in machines:
        machine.close()


if __name__ == "__main__":
    main()

"""What `sound.py` measures with: a PulseAudio server of its own with null sinks as microphones and speakers, programs
that use it, recordings whose samples have times, and a voice.

The microphone and the speaker of a person are null sinks. What is played into the sink of the microphone is what
the microphone hears; the monitor of the speaker is what the person hears. All sinks follow the same clock.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import numpy as np

RATE = 48_000
REAL_TIME = ["chrt", "-r", "10"]


class Server:
    """A sound server with the microphone and speaker of each of these people."""

    def __init__(self, people=("a", "b"), real_time=True, mic_rate=RATE, spk_rate=RATE):
        self.folder = tempfile.mkdtemp(prefix="sound-")
        self.prefix = REAL_TIME if real_time else []
        self.programs = []
        socket = f"{self.folder}/native"
        self.env = {**os.environ, "PULSE_SERVER": f"unix:{socket}", "XDG_RUNTIME_DIR": self.folder,
                    "HOME": self.folder, "PULSE_RUNTIME_PATH": self.folder}
        for name in ("STATE", "CONFIG", "DATA"):
            self.env[f"XDG_{name}_HOME"] = self.folder
        self.pulseaudio = self.start([
            "pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-L",
            f"module-native-protocol-unix auth-anonymous=1 socket={socket}"])
        wait_for(lambda: self.pactl("info", check=False), "the sound server answers")
        for person in people:
            self.pactl("load-module", "module-null-sink", f"sink_name=spk-{person}", f"rate={spk_rate}",
                       f"sink_properties=device.description=Speaker-{person}")
            self.pactl("load-module", "module-null-sink", f"sink_name=mic-{person}", f"rate={mic_rate}")
            self.pactl("load-module", "module-remap-source", f"source_name=microphone-{person}",
                       f"master=mic-{person}.monitor",
                       f"source_properties=device.description=Microphone-{person}")

    def start(self, command, **options):
        """Starts a program that plays and records here, and ends with the server."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
                   "stderr": subprocess.DEVNULL, "env": self.env, **options}
        program = subprocess.Popen(self.prefix + command, start_new_session=True, **options)
        self.programs.append(program)
        return program

    def pactl(self, *words, check=True):
        done = subprocess.run(["pactl", *words], env=self.env, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"pactl {' '.join(words)}: {done.stderr}")
        return done.stdout if done.returncode == 0 else ""

    def stand_still(self, seconds):
        self.pulseaudio.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.pulseaudio.send_signal(signal.SIGCONT)

    def quieten_loopback(self, decibels):
        """Sets the gain of the loopback, which is the only stream of the server itself."""
        inputs = self.pactl("list", "sink-inputs").split("Sink Input #")[1:]
        mine = [one.split("\n")[0] for one in inputs if "module-loopback" in one]
        self.pactl("set-sink-input-volume", mine[0], f"{decibels}dB")

    def close(self):
        for program in reversed(self.programs):
            try:
                os.killpg(program.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            program.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Voice:
    """Plays samples into the microphone of a person. Enough is queued that it never runs dry."""

    def __init__(self, server, person, samples):
        self.samples = samples
        self.player = server.start(
            ["pacat", "--raw", "--format=float32le", f"--rate={RATE}", "--channels=1",
             "-d", f"mic-{person}", "--latency-msec=300"], stdin=subprocess.PIPE)
        self.thread = threading.Thread(target=self.feed, daemon=True)
        self.thread.start()

    def feed(self):
        try:
            self.player.stdin.write(self.samples.astype("<f4").tobytes())
            self.player.stdin.close()
        except (BrokenPipeError, ValueError):
            pass

    def stop(self):
        self.player.kill()
        self.player.wait()


class Recording:
    """Records a source, and knows when each sample came."""

    def __init__(self, server, source):
        self.pieces, self.arrivals, self.count = [], [], 0
        self.recorder = server.start(
            ["parec", "--raw", "--format=float32le", f"--rate={RATE}", "--channels=1",
             "-d", source, "--latency-msec=20"], stdout=subprocess.PIPE, bufsize=0)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        rest = b""
        while data := os.read(self.recorder.stdout.fileno(), 65_536):
            at = time.monotonic()
            data = rest + data
            whole = len(data) // 4 * 4
            rest = data[whole:]
            piece = np.frombuffer(data[:whole], "<f4")
            self.pieces.append(piece)
            self.count += len(piece)
            self.arrivals.append((self.count, at))

    def samples(self):
        return np.concatenate(self.pieces) if self.pieces else np.zeros(0, np.float32)

    def start_time(self, since=0.0):
        """When the first sample came, if every sample had come as early as the earliest."""
        arrivals = np.array([entry for entry in self.arrivals if entry[1] >= since])
        return float(np.min(arrivals[:, 1] - arrivals[:, 0] / RATE))

    def stop(self):
        self.recorder.kill()
        self.recorder.wait()
        self.thread.join()


class Quintet:
    """A Quintet program without a window, and the events that it prints."""

    def __init__(self, server, binary, args, person, processing=False):
        switch = "on" if processing else "off"
        command = [binary, *args, "--json", "--microphone", f"microphone-{person}", "--camera", "none",
                   "--speaker", f"spk-{person}", "--echo", switch, "--noise", switch, "--gain", "off"]
        self.events = []
        self.log = open(f"{server.folder}/quintet-{person}.log", "w", encoding="utf8")
        self.program = server.start(command, stdout=subprocess.PIPE, stderr=self.log)
        self.pid = self.program.pid
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.program.stdout:
            self.events.append(json.loads(line))

    def event(self, name, check=lambda event: True):
        found = []
        wait_for(lambda: found.extend(e for e in list(self.events) if e["event"] == name and check(e)) or found,
                 f"Quintet says {name}")
        return found[0]


class Window:
    """A window on a screen of its own that joins a session, and hands that press its keys."""

    def __init__(self, server, binary, link, person):
        screen = server.start(["Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
                              stdout=subprocess.PIPE)
        self.env = {**server.env, "DISPLAY": f":{int(screen.stdout.readline())}", "LIBGL_ALWAYS_SOFTWARE": "1",
                    "XDG_CONFIG_HOME": f"{server.folder}/window", "XDG_STATE_HOME": f"{server.folder}/window"}
        os.makedirs(f"{server.folder}/window/quintet")
        with open(f"{server.folder}/window/quintet/settings.toml", "w", encoding="utf8") as file:
            file.write(f'name = "Olga"\ncamera = "none"\nmicrophone = "microphone-{person}"\n'
                       f'speaker = "spk-{person}"\necho = false\nnoise = false\ngain = false\n')
        self.program = server.start([binary, "--new-window", link], env=self.env)
        self.window = wait_for(lambda: self.xdotool("search --onlyvisible --name .").split(), "a window")[0]
        time.sleep(1)
        self.xdotool(f"windowfocus {self.window}")

    def xdotool(self, words):
        return subprocess.run(["xdotool", *words.split()], env=self.env, capture_output=True, text=True).stdout


def call(server, binary, kind="audio/one-way", processing=False):
    """A call of person a with person b. Returns both programs once each sees the other live."""
    opener = Quintet(server, binary, ["open", "--kind", kind, "--id", "call", "--listen", "127.0.0.1:0"],
                     "a", processing)
    link = opener.event("opened")["link"]
    guest = Quintet(server, binary, ["join", link], "b", processing)
    guest.event("participant", lambda event: event.get("state") == "live")
    return opener, guest


def wait_for(holds, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return result


def load():
    """The load of the machine, which every figure depends on."""
    return f"load {os.getloadavg()[0]:.1f}"


def speech(seconds, seed, pitch=120.0, dbfs=-24.0):
    """A voice that says syllables: pulses of a gliding pitch through three changing formants, with hisses and rests."""
    random = np.random.default_rng(seed)
    out = np.zeros(int(seconds * RATE))
    at = 0
    while at < len(out):
        length = int(random.uniform(0.12, 0.3) * RATE)
        one = syllable(random, length, pitch)[: len(out) - at]
        out[at : at + len(one)] += one
        rest = random.uniform(0.25, 0.6) if random.random() < 0.15 else random.uniform(0.01, 0.06)
        at += length + int(rest * RATE)
    return out * 10 ** (dbfs / 20) / np.sqrt(np.mean(out**2))


def syllable(random, length, pitch):
    time_s = np.arange(length) / RATE
    hz = pitch * random.uniform(0.85, 1.25) * (1 + random.uniform(-0.2, 0.2) * time_s / time_s[-1])
    phase = np.cumsum(hz) / RATE
    out = np.zeros(length)
    formants = zip((random.uniform(300, 800), random.uniform(900, 2200), random.uniform(2300, 3200)), (1, 0.5, 0.25))
    for formant, amplitude in formants:
        # Harmonics near a formant are strong.
        for n in range(1, int(4000 / pitch)):
            weight = amplitude / (1 + ((n * pitch - formant) / 120.0) ** 2)
            if weight > 0.01:
                out += weight * np.sin(2 * np.pi * n * phase + n)
    hiss = np.diff(random.standard_normal(length + 1)) * 0.05
    edge = min(length // 4, RATE // 50)
    envelope = np.ones(length)
    envelope[:edge] = np.linspace(0, 1, edge)
    envelope[-2 * edge :] = np.linspace(1, 0, 2 * edge)
    return (out + hiss) * envelope * random.uniform(0.6, 1.0)


def level_db(samples):
    """The level in dB relative to full scale, as mean power."""
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12) if len(samples) else -120.0


def align(spoken, heard, since=0.0):
    """Both recordings from the moment on at which both ran, and that moment."""
    starts = [spoken.start_time(since), heard.start_time(since)]
    begin = max(starts)
    cut = [recording.samples()[round((begin - start) * RATE) :] for recording, start in zip((spoken, heard), starts)]
    length = min(len(cut[0]), len(cut[1]))
    return cut[0][:length], cut[1][:length], begin


def delays(spoken, heard, window=0.5, step=0.25, longest=1.2, least=0.5):
    """Pairs of a time in seconds and how many milliseconds later `heard` has what `spoken` had then, or None if
    nothing is alike. The normalised cross-correlation of each window decides."""
    size, span = int(window * RATE), int(longest * RATE)
    found = []
    for begin in range(0, len(spoken) - size - span, int(step * RATE)):
        said = spoken[begin : begin + size]
        if level_db(said) < -50:
            continue
        best, likeness, _ = find(said, heard[begin : begin + size + span])
        found.append((begin / RATE, best * 1000 / RATE if likeness >= least else None))
    return found


def find(said, heard):
    """Where `heard` is most like `said`, how much (1 is the same), and with which gain."""
    said, heard = said.astype(np.float64), heard.astype(np.float64)
    lags = len(heard) - len(said) + 1
    length = 1 << int(np.ceil(np.log2(len(said) + len(heard))))
    product = np.fft.irfft(np.fft.rfft(heard, length) * np.conj(np.fft.rfft(said, length)), length)[:lags]
    energy = np.concatenate([[0.0], np.cumsum(heard**2)])
    energy = energy[len(said) :] - energy[:lags]
    likeness = product / np.sqrt(np.sum(said**2) * np.maximum(energy, 1e-9))
    best = int(np.argmax(likeness))
    return best, likeness[best], product[best] / np.sum(said**2)


def summary(values):
    """`median / p95 / maximum (matched of all)` in milliseconds."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return f"nothing matched (0 of {len(values)})"
    p95 = known[min(len(known) - 1, int(0.95 * len(known)))]
    return f"{np.median(known):.0f} / {p95:.0f} / {known[-1]:.0f} ms ({len(known)} of {len(values)})"

"""Measures sound as people get it: Quintet, and Chromium to compare, with a real PulseAudio server.

    cargo build --release
    python3 tests/interop/sound.py [--quintet target/release/quintet] [--seconds 60] [--calm] CASE...

Cases: delay, stalls, asleep, wakeups, mute, rates, echo; without one, all. Needs Linux, PulseAudio (`pulseaudio`,
`pactl`, `pacat`, `parec`) and the Python package `numpy`; `mute` also `xvfb` and `xdotool`. The sound server,
the programs and this script run real-time (`chrt -r 10`, which needs root) unless `--calm` says that the
machine does nothing else. Each line names the load.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

import sound_rig as rig
from sound_rig import RATE, Recording, Server, Voice, align, call, delays, level_db, load, speech, summary


def delay(options):
    """Mouth to ear, of speech in a call one way."""
    for processing in (False, True):
        with Server(real_time=options.real_time) as server:
            call(server, options.quintet, processing=processing)
            spoken, heard = Recording(server, "mic-a.monitor"), Recording(server, "spk-b.monitor")
            time.sleep(1)
            Voice(server, "a", speech(options.seconds, 1))
            time.sleep(options.seconds + 1)
            found = [ms for _, ms in delays(*align(spoken, heard)[:2])]
            state = "on" if processing else "off"
            print(f"mouth to ear, processing {state}: {summary(found)}, first 10 s {summary(found[:40])}; {load()}", flush=True)


def stalls(options):
    """How late a call is after its sound server stood still."""
    for still in (0.1, 0.2, 0.5, 0.9, 3.0):
        with Server(real_time=options.real_time) as server:
            call(server, options.quintet)
            spoken, heard = Recording(server, "mic-a.monitor"), Recording(server, "spk-b.monitor")
            time.sleep(1)
            Voice(server, "a", speech(30, 1))
            time.sleep(7)
            server.stand_still(still)
            back = time.monotonic()
            time.sleep(12)
            said, there, begin = align(spoken, heard)
            found = [(begin + at - back, ms) for at, ms in delays(said, there, 0.3, 0.05)]
            before = [ms for at, ms in found if at < -still - 1.5]
            first = next((at for at, ms in found if at > 0.05 and ms is not None and ms < np.median([m for m in before if m]) + 30), None)
            after = [ms for at, ms in found if 5 < at < 10]
            print(f"stands still for {still} s: before {summary(before)}, 5 to 10 s after {summary(after)}, "
                  f"usual again for what is said {first:.2f} s after; {load()}", flush=True)


def asleep(options):
    """How late a call is whose speaker wakes a second after the call began."""
    with Server(real_time=options.real_time) as server:
        server.pactl("suspend-sink", "spk-b", "1")
        Voice(server, "a", speech(60, 1))
        call(server, options.quintet)
        time.sleep(1)
        server.pactl("suspend-sink", "spk-b", "0")
        spoken, heard = Recording(server, "mic-a.monitor"), Recording(server, "spk-b.monitor")
        time.sleep(12)
        found = delays(*align(spoken, heard)[:2])
        early, late = [ms for at, ms in found if at < 3], [ms for at, ms in found if at >= 5]
        print(f"speaker asleep: first 3 s {summary(early)}, 5 to 10 s later {summary(late)}; {load()}", flush=True)


def switches(pid):
    """How often each thread of a process and its children has waited, by thread."""
    counts = {}
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status", encoding="utf8") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            counts[(pid, task, fields["Name"])] = int(fields["voluntary_ctxt_switches"])
            with open(f"/proc/{pid}/task/{task}/children", encoding="utf8") as file:
                for child in file.read().split():
                    counts |= switches(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return counts


def wakeups(options):
    """Wake-ups a second of both programs in a call one way, audio only."""
    for processing in (False, True):
        with Server(real_time=options.real_time) as server:
            programs = call(server, options.quintet, processing=processing)
            Voice(server, "a", speech(30, 1))
            time.sleep(3)
            before = switches(programs[0].pid) | switches(programs[1].pid)
            time.sleep(10)
            after = switches(programs[0].pid) | switches(programs[1].pid)
            rates = {key: (count - before.get(key, 0)) / 10 for key, count in after.items()}
            state = "on" if processing else "off"
            print(f"wake-ups, processing {state}: {sum(rates.values()):.0f} a second; {load()}", flush=True)
            for (pid, _, name), rate in sorted(rates.items(), key=lambda item: -item[1]):
                if rate >= 1:
                    print(f"    {'sender' if pid == programs[0].pid else 'listener'} {name}: {rate:.0f}")


def rates(options):
    """Breaks of the phase of a tone with devices of other rates."""
    for mic_rate, spk_rate in ((RATE, RATE), (44_100, 96_000), (96_000, 44_100)):
        with Server(real_time=options.real_time, mic_rate=mic_rate, spk_rate=spk_rate) as server:
            call(server, options.quintet)
            spoken, heard = Recording(server, "mic-a.monitor"), Recording(server, "spk-b.monitor")
            time.sleep(1)
            Voice(server, "a", np.sin(2 * np.pi * 1000 * np.arange(25 * RATE) / RATE) * 0.1)
            time.sleep(24)
            said, there, _ = align(spoken, heard)
            print(f"microphone {mic_rate}, speaker {spk_rate}: breaks in 20 s: {breaks(said)} spoken, "
                  f"{breaks(there)} heard; {load()}", flush=True)


def breaks(samples, hz=1000.0):
    """How often the phase of a tone jumps, or the tone is gone, in the last 20 of 23 seconds of it."""
    first = int(np.argmax(np.abs(samples) > 0.02)) + 2 * RATE
    tone = samples[first : first + 20 * RATE]
    mixed = tone * np.exp(-2j * np.pi * hz * np.arange(len(tone)) / RATE)
    steps = mixed[: len(mixed) // 480 * 480].reshape(-1, 480).mean(axis=1)
    turns = np.abs(np.angle(steps[1:] * np.conj(steps[:-1])))
    faults = np.flatnonzero((turns > 0.2) | (np.abs(steps[1:]) < 0.5 * np.median(np.abs(steps))))
    return int(np.sum(np.diff(faults, prepend=-100) > 5))


def mute(options):
    """From a key in the window to silence, and from a key to the first sound, of steady noise."""
    with Server(real_time=options.real_time) as server:
        opener = rig.Quintet(server, options.quintet, [
            "open", "--kind", "audio/one-to-one", "--id", "call", "--listen", "127.0.0.1:0"], "b")
        window = rig.Window(server, options.quintet, opener.event("opened")["link"], "a")
        opener.event("participant", lambda event: event.get("state") == "live")
        heard = Recording(server, "spk-b.monitor")
        Voice(server, "a", np.random.default_rng(1).standard_normal(120 * RATE) * 0.05)
        time.sleep(4)
        presses = {"mute": [], "unmute": [], "press": [], "release": []}
        for names, words in ((("mute", "unmute"), ("key m", "key m")),
                             (("press", "release"), ("keydown space", "keyup space"))):
            if names[0] == "press":
                window.xdotool("key m")
                time.sleep(1)
            for _ in range(options.times):
                for name, word in zip(names, words):
                    time.sleep(1 + np.random.default_rng().random() * 0.1)
                    presses[name].append(time.monotonic())
                    window.xdotool(word)
        time.sleep(1)
        samples, start = heard.samples(), heard.start_time()
        for name, at in presses.items():
            found = [change_after(samples, round((moment - start) * RATE), name in ("mute", "release"))
                     for moment in at]
            print(f"{name}: {summary(found)}, of {len(found)}; {load()}", flush=True)


def change_after(samples, index, to_silence):
    """After how many milliseconds the sound ends, or begins, within a second; None if it does not."""
    blocks = samples[index : index + RATE * 9 // 10]
    loud = np.abs(blocks) > 0.002
    if not loud.any():
        return 0.0 if to_silence else None
    last = len(loud) - 1 - int(np.argmax(loud[::-1]))
    if to_silence:
        return last * 1000 / RATE if last < len(loud) - RATE // 20 else None
    return int(np.argmax(loud)) * 1000 / RATE


def echo(options):
    """What returns to A of its own voice when B's microphone hears B's speaker 40 ms later, at -10 dB."""
    with Server(real_time=options.real_time) as server:
        call(server, options.quintet, "audio/one-to-one", processing=True)
        server.pactl("load-module", "module-loopback", "source=spk-b.monitor", "sink=mic-b", "latency_msec=40",
                     "adjust_time=0", "source_dont_move=true", "sink_dont_move=true")
        server.quieten_loopback(-10)
        recordings = {name: Recording(server, f"{name}.monitor") for name in ("mic-a", "spk-b", "mic-b", "spk-a")}
        far, near = speech(40, 1), speech(12, 2, pitch=210.0)
        time.sleep(2)
        Voice(server, "a", far)
        time.sleep(18)
        Voice(server, "b", near)
        time.sleep(14)
        starts = {name: recording.start_time() for name, recording in recordings.items()}
        begin = max(starts.values())
        cut = {name: recording.samples()[round((begin - starts[name]) * RATE) :]
               for name, recording in recordings.items()}
        first = int(np.argmax(np.abs(cut["spk-b"]) > 0.003))
        report_echo(cut, first, near)


def report_echo(cut, first, near):
    """Prints the echo that is taken away from `first` on, and what happens to both voices while both speak."""
    def erle(begin, end):
        part = slice(first + int(begin * RATE), first + int(end * RATE))
        return level_db(cut["mic-b"][part]) - level_db(cut["spk-a"][part])

    echo_db = level_db(cut["mic-b"][first : first + 14 * RATE]) - level_db(cut["mic-a"][first : first + 14 * RATE])
    seconds = [f"{erle(second, second + 1):.0f}" for second in range(14)]
    print(f"echo in B's microphone {echo_db:.1f} dB of what A said; taken away at 2 to 3 s {erle(2, 3):.0f} dB, "
          f"from 3 to 14 s {erle(3, 14):.0f} dB, each second {' '.join(seconds)}; {load()}")
    gains = gains_of(near, cut["spk-a"])
    print(f"double talk: B's voice arrives at A with {np.median(gains):+.1f} dB, quartiles "
          f"{np.percentile(gains, 25):+.1f} {np.percentile(gains, 75):+.1f}, of {len(gains)} windows")
    both = first + int(14 * RATE)
    alone = gains_of(cut["mic-a"][first : first + 12 * RATE], cut["spk-b"])
    ducked = gains_of(cut["mic-a"][both : both + 14 * RATE], cut["spk-b"])
    print(f"A's voice arrives at B with {np.median(alone):+.1f} dB before, {np.median(ducked):+.1f} dB, at least "
          f"{np.percentile(ducked, 5):+.1f} dB, while B speaks; {load()}", flush=True)


def gains_of(said, heard):
    """How much louder `heard` is than `said`, in dB, for each half second of `said`. What else is in `heard` counts, too."""
    shift = rig.find(said[2 * RATE : 6 * RATE], heard)[0] - 2 * RATE
    gains = []
    for begin in range(max(0, -shift), len(said) - RATE // 2, RATE // 2):
        one, there = (part[at : at + RATE // 2] for part, at in ((said, begin), (heard, shift + begin)))
        if level_db(one) > -40 and len(there) == len(one):
            gains.append(level_db(there) - level_db(one))
    return np.array(gains)


CASES = {"delay": delay, "stalls": stalls, "asleep": asleep, "wakeups": wakeups, "mute": mute, "rates": rates,
         "echo": echo}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quintet", default="target/release/quintet")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--calm", action="store_true")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    options = parser.parse_args()
    options.quintet = os.path.abspath(options.quintet)
    options.real_time = not options.calm
    if options.real_time:
        subprocess.run(["chrt", "-r", "-p", "10", str(os.getpid())], check=True)
    for name in options.cases or CASES:
        if name not in CASES:
            sys.exit(f"there is no case {name}; there are {', '.join(CASES)}")
        CASES[name](options)


if __name__ == "__main__":
    main()

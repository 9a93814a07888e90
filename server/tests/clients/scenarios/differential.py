"""Milena's decoders beside Apache Kafka's own classes, on the same bytes."""

import subprocess

import peers
from scenario import Skip, examples, scenario

JUDGE = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-StackTraceInThrowable", "-cp"]


@scenario(600)
def same_bytes(place):
    """Batches, requests, answers, consumer metadata and group records, sound and spoiled: read or refused alike, field by field."""
    if place.subject != "milena":
        raise Skip("the decoders are Milena's")
    (program,) = examples("differential")
    command = [program, "--cases", place.options["cases"], "--seed", place.options["seed"], "--", *JUDGE, peers.judge(), "Judge"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    print(done.stdout)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}")

"""The scripted NDIF server of `ndif_script.py`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import nnsight
import torch
import transformers
from conftest import byte_tokenizer, tiny_module

VERSIONS = {"nnsight": nnsight.__version__, "transformers": transformers.__version__, "torch": torch.__version__}


class Scripted:
    """A server for the model in a folder; stopped by `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(Path(__file__).with_name("ndif_script.py")), str(folder), "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.host = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def script(self, **faults) -> None:
        """Set its faults; without any it has none."""
        body = json.dumps({"versions": VERSIONS, **faults}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.host}/script", body)).close()

    def heard(self) -> bytes:
        """Everything that was sent to it."""
        with urllib.request.urlopen(f"{self.host}/heard") as answer:
            return answer.read()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def save_tiny(folder: Path) -> None:
    """The tiny Llama and its tokenizer, as a server or a client loads them."""
    tiny_module("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)

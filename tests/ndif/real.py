"""Here against a real NDIF server on loopback, every operation on SmolLM2; run by `make test-ndif`.

With `NDIF_UP=1` a server that is up already is used (`python tests/ndif/server.py FOLDER`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from nnsight.schema.config import CONFIG

import steerwidgets as sw
from benchmarks.work import HOOK, texts
from steerwidgets.engine import bundled, ndif

sys.path.insert(0, str(Path(__file__).parent))
from server import NAME, Server, save_model

PROMPTS = ["January, February, March, April,", "one, two, three,"]


@pytest.fixture(scope="session")
def server():
    if os.environ.get("NDIF_UP"):
        yield None
        return
    # Ray's sockets need a short path.
    scratch = Path(tempfile.mkdtemp(prefix="sw-", dir="/tmp"))
    save_model(scratch / "model")
    server = Server(scratch / "model", scratch, Path(os.environ["NDIF_ENV"]))
    try:
        server.start()
        yield server
    finally:
        # What renames itself and outlives this ends with the namespace that the Makefile runs it in.
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="session")
def both(server):
    CONFIG.APP.REMOTE_LOGGING = False
    here = sw.load(check=False)
    there = sw.load(NAME, sae=bundled.SAE_FOLDER, labels=here.labels, remote=True)
    there.preset = here.preset
    return SimpleNamespace(here=here, there=there)


@pytest.fixture(scope="session")
def vector(both):
    numbers = ["one, two, three, four,", "five, six, seven, eight,"]
    months = ["January, February, March, April,", "May, June, July, August,"]
    return sw.contrast(both.here, numbers, months, space="sae")


STEPS = {
    "nothing": lambda v: (),
    "add": lambda v: sw.Add(v, 1.5),
    "add in the SAE's space": lambda v: sw.Add(v, 1.5, "all_but_first", space="sae"),
    "without the error term": lambda v: sw.Add(v, 1.5, "all_but_first", space="sae", error_term="drop"),
    "clamp": lambda v: sw.Clamp([1, 5], 2.0),
    "ablate": lambda v: sw.Ablate(range(64)),
}


@pytest.mark.parametrize("name", STEPS)
def test_logits(both, vector, name):
    there, here = (m.logits(PROMPTS, STEPS[name](vector)) for m in (both.there, both.here))
    assert torch.allclose(there, here, atol=1e-5, rtol=1e-5)


def test_no_weights_are_here(both):
    assert all(p.is_meta for p in both.there.traces.lm._module.parameters())


def test_activations_and_features(both):
    for read in ("last", "mean"):
        there, here = (m.activations(PROMPTS, read) for m in (both.there, both.here))
        assert torch.allclose(there, here, atol=1e-5, rtol=1e-5)


def test_compare(both):
    there, here = (sw.compare(m, *PROMPTS).table for m in (both.there, both.here))
    pd.testing.assert_frame_equal(there, here, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["nothing", "add", "add in the SAE's space", "clamp", "ablate"])
def test_generate(both, vector, name):
    there, here = (m.generate(PROMPTS[0], STEPS[name](vector), max_new_tokens=8) for m in (both.there, both.here))
    assert there.ids == here.ids
    assert there.logprobs == pytest.approx(here.logprobs, abs=1e-5)


def test_the_standard_sweep_is_one_small_job(both):
    """24 prompts x 5 vectors x 11 multipliers."""
    prompts, answers = texts()
    task = sw.Task("standard", prompts, answers)
    means = both.here.activations(prompts, "last", HOOK).view(6, 4, -1).mean(1)
    vectors = {f"v{n}": sw.SteeringVector(d, HOOK, f"v{n}") for n, d in enumerate(means[1:] - means[:-1])}
    multipliers = torch.linspace(-2, 2, 11).tolist()
    with ndif.counting() as jobs:
        there = sw.sweep(both.there, task, vectors, multipliers, "last", controls=False)
    here = sw.sweep(both.here, task, vectors, multipliers, "last", controls=False)
    pd.testing.assert_frame_equal(there.table, here.table, atol=1e-5, rtol=1e-4)
    [job] = jobs
    if "NDIF_REPORT" in os.environ:
        Path(os.environ["NDIF_REPORT"]).write_text(json.dumps(vars(job)))
    assert len(there.table) == 24 * (1 + 5 * 11)
    assert job.sent + job.received < 10**6


def test_a_job_that_fails_on_the_server(both):
    with pytest.raises(ndif.RemoteJobError, match="failed on NDIF") as failed:
        both.there.traces.variants(
            both.there.hook,
            [{**chunk_of(both.there), "baselines": torch.tensor([99])}],
        )
    assert "IndexError" in failed.value.details


def chunk_of(model):
    from steerwidgets.engine.trunk import Trunk

    return Trunk(model.traces, model.batch(PROMPTS), model.hook).remote_chunk([], 1)


def test_a_finished_job_is_fetched_again(both):
    with ndif.counting() as jobs:
        before = both.there.logits(PROMPTS)
    with sw.resume(jobs[0].id):
        assert torch.equal(both.there.logits(PROMPTS), before)


def test_a_server_that_stops_in_the_middle_of_a_job_is_found_again(both, server, monkeypatch):
    """Its API goes away once the job is accepted; what had begun is fetched when it is back."""
    if server is None:
        return
    monkeypatch.setattr(ndif, "PATIENCE", 1.0)
    told = []

    def stop(*status):
        if not told:
            server.stop_part("api")
        told.append(status)

    expected = both.there.logits(PROMPTS[0])
    with pytest.raises(ndif.RemoteJobError, match="has not answered") as gone, ndif.watching(stop):
        both.there.logits(PROMPTS[0])
    server.start_api()
    end = time.monotonic() + 20
    try:
        with sw.resume(gone.value.job), ndif.watching(None, lambda: time.monotonic() > end):
            assert torch.allclose(both.there.logits(PROMPTS[0]), expected, atol=1e-5)
    except ndif.StoppedWaiting:
        # It had not left the queue, which ended with the API: it says "queued" for ever. The work can be sent again.
        assert torch.allclose(both.there.logits(PROMPTS[0]), expected, atol=1e-5)

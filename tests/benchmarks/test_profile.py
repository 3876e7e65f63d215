"""The profile cuts the step that fit takes: its last part is that step, each goes further than the one before."""

import numpy as np
import pytest

from benchmarks import profile
from benchmarks.cases import CASES
from nbdense.engine.tables import PHASE, TRANSPOSES
from nbdense.training import phases


@pytest.fixture(scope="module")
def step():
    return profile.Step(CASES["tab_s"])


def test_parts_lead_up_to_the_step_of_fit(step):
    case = CASES["tab_s"]
    parts = profile.parts_of(step.network, case.batch)
    whole = phases.training(step.network.layers)
    np.testing.assert_array_equal(np.array(parts[-1].phases, PHASE), whole[whole["kind"] != TRANSPOSES])
    assert len({str(part.phases) for part in parts}) == len(parts)
    assert sum(part.operations for part in parts) == case.step_operations
    assert [part.name for part in parts[:3]] == ["an empty region", "gather", "forward 20-64"]


def test_a_part_is_run_as_often_as_it_is_asked_for(step):
    gather = profile.parts_of(step.network, CASES["tab_s"].batch)[1]
    assert step.seconds(gather.phases, 2 * CASES["tab_s"].steps + 1) > 0


def test_the_table(capsys):
    assert profile.main(["--cases", "tab_s", "--threads", "1", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "tab_s: 20-64-64-2, batch 32" in said
    assert [line.split("  ")[0] for line in said.splitlines()[-2:]] == ["update", "the step"]

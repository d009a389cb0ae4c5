"""Two iterations of a preset as a Dagster job: each stage is one `cuadft stage` command, tried again if it fails.

    dagster job execute -f params/orchestration.py --config run.yaml      # or: dagster dev -f params/orchestration.py

run.yaml names the run folder and the preset once for all stages; `overrides` is a list of NAME=VALUE:

    resources: {loop: {config: {run_dir: runs/quickstart, preset: quickstart, overrides: ["align_methods=[dpo]"]}}}

The stages form a chain, since one process at a time works in a run folder. A stage that is done and unchanged is
skipped, so that a job may be started again at any time. Bad input is not tried again: it would fail alike.
"""

import subprocess
import sys

from dagster import (
    ConfigurableResource,
    Failure,
    In,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    RetryPolicy,
    job,
    op,
)

from cuadft.loop.stages import STAGE_NAMES

ITERATIONS = 2
BAD_INPUT = 2  # the exit code of a command whose input is at fault
RETRIES = RetryPolicy(max_retries=2, delay=5)  # delay in seconds


class Loop(ConfigurableResource):
    """The settings that every stage of a run shares."""

    run_dir: str
    preset: str
    overrides: list[str] = []

    def command(self, iteration: int, stage: str) -> list[str]:
        """Return the command of one stage."""
        given = [f"--set={each}" for each in self.overrides]
        start = [sys.executable, "-m", "cuadft.cli", "stage", self.run_dir, str(iteration), stage]
        return [*start, "--preset", self.preset, *given]


def stage_op(iteration: int, stage: str) -> OpDefinition:
    """Return the op that runs one stage of an iteration."""

    @op(name=f"iter_{iteration:02d}_{stage}", ins={"before": In(Nothing)}, out=Out(Nothing), retry_policy=RETRIES)
    def run_stage(context: OpExecutionContext, loop: Loop) -> None:
        done = subprocess.run(loop.command(iteration, stage), capture_output=True, text=True)
        context.log.info(done.stdout)
        if done.returncode:
            told = done.stderr or done.stdout
            raise Failure(f"exit code {done.returncode}: {told}", allow_retries=done.returncode != BAD_INPUT)

    return run_stage


@job(resource_defs={"loop": Loop.configure_at_launch()})
def two_iterations() -> None:
    """Run all stages of two iterations, one after another."""
    before = None
    for iteration in range(1, ITERATIONS + 1):
        for stage in STAGE_NAMES:
            made = stage_op(iteration, stage)
            before = made() if before is None else made(before)

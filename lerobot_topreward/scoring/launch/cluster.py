"""Ranks on the machines of a cluster: Slurm's jobs, and Ray's tasks."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from lerobot_topreward.errors import UserError
from lerobot_topreward.scoring.launch.config import RayConfig, SlurmConfig
from lerobot_topreward.scoring.launch.processes import WatchedStep

logger.disable("datatrove")  # what it says of what it launches; we say that ourselves

_PASSED = ("HF_HOME", "HF_LEROBOT_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")


def submit_slurm(
    score: PipelineStep, finish: PipelineStep, *, tasks: int, config: SlurmConfig, logs: Path
) -> tuple[str, str]:
    """Submit two Slurm jobs: an array of tasks that score, and one that waits for all of them.

    Args:
        score: what each task runs.
        finish: what runs when all of them ended well.
        tasks: how many.
        config: what they are given.
        logs: folder that all machines share.

    Returns:
        Their numbers.

    Raises:
        UserError: Slurm refuses.
    """
    # By default what runs on a node is what runs here; a CPU that scores has as many threads.
    activate = config.activate or f'export PATH="{Path(sys.executable).parent}:$PATH"'
    threads = "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"

    def make_executor(
        step: PipelineStep,
        name: str,
        *,
        tasks: int,
        gpus: int,
        depends: SlurmPipelineExecutor | None,
    ) -> SlurmPipelineExecutor:
        # A job that waits for one that failed would wait forever.
        given = {"kill-on-invalid-dep": "yes"}
        for argument in config.sbatch:
            key, _, value = argument.partition("=")
            given[key] = value
        return SlurmPipelineExecutor(
            [step],
            tasks=tasks,
            time=config.time,
            partition=config.partition,
            cpus_per_task=config.cpus_per_task,
            mem_per_cpu_gb=config.mem_per_cpu_gb,
            gpus_per_task=gpus,
            job_name=f"topreward-{name}",
            qos=config.qos,  # pyright: ignore[reportArgumentType]
            env_command=f"{activate}\n{threads}\nexport LOGURU_DIAGNOSE=NO",
            sbatch_args=given,
            depends=depends,
            logging_dir=str(logs / name),
            skip_completed=False,  # the store says what is done
        )

    scoring = make_executor(score, "score", tasks=tasks, gpus=config.gpus_per_task, depends=None)
    finishing = make_executor(finish, "finish", tasks=1, gpus=0, depends=scoring)
    try:
        scoring.run()
        finishing.run()
    except subprocess.CalledProcessError as error:
        said = "" if scoring.job_id is None else f"; job {scoring.job_id} scores all the same"
        raise UserError(
            f"Slurm's sbatch refused, with exit code {error.returncode}; see what it printed, and "
            f"`launch_config`{said}"
        ) from None
    return str(scoring.job_id), str(finishing.job_id)


def run_ray(
    step: PipelineStep, *, tasks: int, config: RayConfig, logs: Path, env: Mapping[str, str]
) -> None:
    """Run a step as tasks of a Ray cluster, and wait for them; some may have failed.

    Args:
        step: what each task runs.
        tasks: how many.
        config: what they are given, and which cluster.
        logs: folder that all machines share.
        env: variables for the tasks, beside those that say where the Hub's files are.

    Raises:
        UserError: there is no cluster.
    """
    import ray

    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    variables = {**passed, **env}
    try:
        ray.init(address=config.address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at address {config.address} ({error}); start one with 'ray start', or "
            "say in `launch_config` where it is"
        ) from None
    try:
        RayPipelineExecutor(
            [WatchedStep(step, logs=logs, env=variables)],
            tasks=tasks,
            logging_dir=str(logs),
            skip_completed=False,  # the store says what is done
            cpus_per_task=config.cpus_per_task,
            gpus_per_task=config.gpus_per_task,
            mem_per_cpu_gb=config.mem_per_cpu_gb,
            ray_remote_kwargs={"runtime_env": {"env_vars": variables}},
        ).run()
    finally:
        ray.shutdown()

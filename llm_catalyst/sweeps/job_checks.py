"""Check every job of a sweep before the first one begins."""

from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from llm_catalyst.config.backbone import find_backbone_choice, settle_backbone
from llm_catalyst.config.build import build_components
from llm_catalyst.config.errors import explain_config_error, is_config_error
from llm_catalyst.sweeps.fallbacks import resolve_fallbacks
from llm_catalyst.sweeps.job import config_folders
from llm_catalyst.sweeps.status import Jobs, distinguish_jobs
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError


def check_jobs(loader: ConfigLoader, config: DictConfig, jobs: Jobs) -> None:
    """Compose the configuration of each job and build its objects; nothing is loaded.

    Args:
        loader: Hydra's, which composes configurations.
        config: The sweep's own.
        jobs: The overrides of each job by its number.

    Raises:
        ConfigurationError: a job would be refused.
    """
    names = distinguish_jobs(jobs)
    for number, overrides in jobs.items():
        try:
            build_components(resolve_job(loader.load_sweep_config(config, list(overrides))))
        except Exception as error:
            if not is_config_error(error):
                raise
            place = f" ({names[number]}; no run of the sweep was started)" if names[number] else ""
            raise ConfigurationError(explain_config_error(error) + place) from error


def resolve_job(composed: DictConfig) -> dict[str, Any]:
    """The configuration of a job's run without Hydra's own node, as plain dicts."""
    plain, runtime = drop_hydra_node(composed, throw_on_missing=True), composed.hydra.runtime
    folders, node = config_folders(runtime), plain["backbone"]
    if expand_path(str(node["name"])).is_dir():  # the hub may be reached from the machines of the runs only
        choice = find_backbone_choice(runtime.choices.backbone, folders)
        plain["backbone"] = settle_backbone(choice, node, composed.hydra.overrides.task)
    return resolve_fallbacks(plain, folders)


def drop_hydra_node(composed: DictConfig, throw_on_missing: bool = False) -> dict[str, Any]:
    """A composed configuration without Hydra's own node, resolved, as plain dicts."""
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    plain: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=throw_on_missing)
    return dict(plain)

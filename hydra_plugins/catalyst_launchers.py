"""The launcher of llm-catalyst. Hydra reads this file whenever it starts, so the package is imported when it runs."""

from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class Together(BasicLauncher):
    """Runs that can share a backbone, `at_once` of them in one process (`joint`: training/shared_backbone.py).

    It launches a job as Hydra's own does; `sweeps.launchers.launch_together` calls it in several threads.
    """

    def __init__(self, at_once: int, joint: str) -> None:
        from llm_catalyst.utils.validation import check_choice, check_range

        super().__init__()
        check_range("hydra.launcher.at_once", at_once, 1)
        check_choice("hydra.launcher.joint", joint, ("auto", "all", "none"))
        self.at_once, self.joint = at_once, joint

"""Saving and restoring the prompts of the node: parameter ``prompt_file`` and two services.

The parameter is settled at start: whoever may call the services, or set parameters, may not choose
which file is read and replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.files.user_folders import expanded
from clipseg_ros.prompts.entry import PromptEntry
from clipseg_ros.prompts.file import load_prompts, save_prompts
from clipseg_ros.prompts.set import describe
from clipseg_ros.ros.qos import QosWatch


class PromptFiles(PromptEntry):
    """``~/save_prompts``, ``~/load_prompts``, and what is restored at configuring."""

    def open(self, _watch: QosWatch) -> None:
        """Create the services."""
        self._serve(Trigger, 'save_prompts', self._save)
        self._serve(Trigger, 'load_prompts', self._load)

    def restore(self) -> bool:
        """Restore the prompts from the parameter's file, if it is there; return whether they were.

        A file that cannot be restored is one line in the log.
        """
        logger, path = self._node.get_logger(), self._path()
        if path is None:
            return False
        if not os.path.exists(path):
            logger.info(f'{path} is not there yet: ~/save_prompts writes the prompts to it')
            return False
        try:
            self._server.restore(load_prompts(path))
        except ClipsegError as error:
            logger.error(f'prompts not restored, going on with the parameter `prompt`: {error}')
            return False
        logger.info(f'prompts restored from {path}, in place of the parameter `prompt`')
        return True

    def _path(self) -> Path | None:
        value = str(self._node.get_parameter('prompt_file').value)
        return expanded(value) if value.strip() else None

    def _required_path(self) -> Path:
        path = self._path()
        if path is None:
            raise PromptError(
                'the parameter `prompt_file` is empty: start the node with a path, since it cannot '
                'be set later'
            )
        return path

    def _save(self, _request: Any, _response: Any) -> str:
        path, active = self._required_path(), self._server.prompts.active
        save_prompts(path, active)
        said = f'{len(active)} prompt(s) saved to {path}'
        self._log.info('saved', said, each=True)
        return said

    def _load(self, _request: Any, _response: Any) -> str:
        self._server.replace(load_prompts(self._required_path()))
        return describe(self._server.prompts.active)

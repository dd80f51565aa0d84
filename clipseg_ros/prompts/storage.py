"""Saving and restoring the prompts of the node: parameter ``prompt_file`` and two services."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_ros.prompts.file import load_prompts, save_prompts
from clipseg_ros.prompts.server import PromptServer, describe


class PromptStorage:
    """``~/save_prompts``, ``~/load_prompts``, and what is restored at configuring.

    Args:
        node: The node; has the parameter ``prompt_file``.
        server: Has the prompts.
    """

    def __init__(self, node: Any, server: PromptServer) -> None:
        self._node, self._server = node, server
        self._services: list[Any] = []

    def open(self) -> None:
        """Creates the services."""
        for name, act in (('save_prompts', self._save), ('load_prompts', self._load)):
            self._services.append(
                self._node.create_service(Trigger, f'~/{name}', self._answer(name, act))
            )

    def close(self) -> None:
        """Takes them away."""
        for service in self._services:
            self._node.destroy_service(service)
        self._services.clear()

    def restore(self) -> bool:
        """Restores the prompts, where the parameter names a file and it is there.

        Returns:
            Whether it did. A file that cannot be restored is one line in the log.
        """
        logger, path = self._node.get_logger(), self._path()
        if path is None:
            return False
        if not path.exists():
            logger.info(f'{path} is not there yet: ~/save_prompts writes the prompts to it')
            return False
        try:
            self._load()
        except ClipsegError as error:
            logger.error(f'prompts not restored, going on with the parameter `prompt`: {error}')
            return False
        logger.info(f'prompts restored from {path}, in place of the parameter `prompt`')
        return True

    def _path(self) -> Path | None:
        value = str(self._node.get_parameter('prompt_file').value)
        return Path(value).expanduser() if value.strip() else None

    def _required_path(self) -> Path:
        path = self._path()
        if path is None:
            raise PromptError('the parameter `prompt_file` is empty: set it to a path first')
        return path

    def _save(self) -> str:
        path, active = self._required_path(), self._server.prompts.active
        save_prompts(path, active)
        return f'{len(active)} prompt(s) saved to {path}'

    def _load(self) -> str:
        self._server.replace(load_prompts(self._required_path()))
        return describe(self._server.prompts.active)

    def _answer(self, name: str, act: Callable[[], str]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            try:
                response.success, response.message = True, act()
                self._node.get_logger().info(response.message)
            except ClipsegError as error:
                response.success, response.message = False, str(error)
                self._node.get_logger().warning(f'{name} refused: {error}')
            return response

        return answer

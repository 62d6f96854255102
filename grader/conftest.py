"""pytest grader: the engine's plugin grades this folder's tests."""

from autograde.plugin import *  # noqa: F403

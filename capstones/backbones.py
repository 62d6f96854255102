"""Backbones from timm: by name, for any number of channels, with pretrained weights if wanted."""

from typing import Any

import timm
from torch import nn

from pathlab.errors import UserError


def check_name(name: str) -> None:
    """Raises UserError for a name that timm does not know."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        close = timm.list_models(f"*{architecture}*")[:5] or timm.list_models(
            f"{architecture[:6]}*"
        )
        raise UserError(
            f"timm knows no model {name!r}. "
            + (f"Did you mean {', '.join(close[:5])}? " if close else "")
            + "timm.list_models() names all."
        )


def make_backbone(name: str, pretrained: bool, **options: Any) -> nn.Module:
    """timm.create_model(name, pretrained, **options), such as in_chans=6 or features_only=True.

    Raises UserError for a name that timm does not know, options that the model does not take, and
    pretrained weights that are neither in the cache nor can be downloaded.
    """
    check_name(name)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise UserError(
                f"timm cannot make {name} with {options}: {error}. Choose another backbone."
            ) from error
        raise UserError(
            f"the pretrained weights of {name} could not be downloaded "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}). Add --no-pretrained to "
            "start from random weights, or run this once where there is a network: the weights are "
            "kept in Hugging Face's cache (HF_HOME)."
        ) from error


def native_size(name: str) -> int:
    """The height, in pixels, of the images that a network's pretrained weights come from.

    Raises UserError for a name that timm does not know.
    """
    check_name(name)
    known = timm.get_pretrained_cfg(name)
    assert known is not None  # the name is one of timm's
    return known.input_size[-2]

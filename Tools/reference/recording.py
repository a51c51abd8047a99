"""Keeps every intermediate value of a forward pass, under the names that README.md lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

import beit3

STREAMS = {"A": "vision", "B": "text"}


@contextmanager
def recorded(model: beit3.Model) -> Iterator[dict[str, Tensor]]:
    """While open, every intermediate value of `model` is kept under its name, taken from torchscale's own modules.

    A module that exists once for each modality is watched in both copies, so a value never has to be cut out of a
    joint sequence, except where torchscale only has the joint one: the input of the first layer and what layers return.
    """
    values: dict[str, Tensor] = {}
    handles = []
    encoder = model.beit3.encoder

    def keep(name: str, value: Tensor) -> None:
        values[name] = value.detach().clone()

    def keep_output(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_hook(lambda _m, _i, value: keep(name, value)))

    def keep_input(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_pre_hook(lambda _m, arguments: keep(name, arguments[0])))

    def keep_streams(name: str, joint: Tensor, position: int) -> None:
        if position == -1:
            position = joint.shape[1]
        for stream, rows in (("vision", joint[:, :position]), ("text", joint[:, position:])):
            if rows.shape[1]:
                keep(name.format(stream), rows)

    keep_output(model.beit3.vision_embed.proj, "vision.patches")
    handles.append(
        encoder.layers[0].register_forward_pre_hook(
            lambda _m, arguments, named: keep_streams("{}.embedding", arguments[0], named["multiway_split_position"]),
            with_kwargs=True,
        )
    )
    for index, layer in enumerate(encoder.layers):
        attention = layer.self_attn
        for branch, stream in STREAMS.items():
            prefix = f"layers.{index}.{stream}"
            feed_forward = getattr(layer.ffn, branch)
            keep_output(getattr(layer.self_attn_layer_norm, branch), f"{prefix}.attention_norm")
            keep_output(getattr(attention.q_proj, branch), f"{prefix}.query")
            keep_output(getattr(attention.k_proj, branch), f"{prefix}.key")
            keep_output(getattr(attention.v_proj, branch), f"{prefix}.value")
            keep_input(getattr(attention.inner_attn_ln, branch), f"{prefix}.attention")
            keep_output(getattr(attention.inner_attn_ln, branch), f"{prefix}.attention_inner_norm")
            keep_output(getattr(attention.out_proj, branch), f"{prefix}.attention_out")
            keep_input(getattr(layer.final_layer_norm, branch), f"{prefix}.attention_residual")
            keep_output(getattr(layer.final_layer_norm, branch), f"{prefix}.feed_forward_norm")
            keep_output(feed_forward.fc1, f"{prefix}.feed_forward_in")
            keep_input(feed_forward.ffn_layernorm, f"{prefix}.feed_forward_activation")
            keep_output(feed_forward.ffn_layernorm, f"{prefix}.feed_forward_inner_norm")
            keep_output(feed_forward.fc2, f"{prefix}.feed_forward_out")
        handles.append(
            layer.register_forward_hook(
                lambda _m, _a, named, value, index=index: keep_streams(
                    f"layers.{index}.{{}}.output", value[0], named["multiway_split_position"]
                ),
                with_kwargs=True,
            )
        )
    if encoder.layer_norm is not None:
        for branch, stream in STREAMS.items():
            keep_output(getattr(encoder.layer_norm, branch), f"{stream}.final_norm")
    if model.configuration.task == "classification":
        keep_input(model.fc_norm, "pooled")
        keep_output(model.fc_norm, "pooled_norm")
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()
    unflatten(values)


def unflatten(values: dict[str, Tensor]) -> None:
    """Gives [N, rows, channels] to the values that torchscale has in another shape: the patches, which a convolution
    leaves as an image, and the inside of the feed-forward network, which sees one long batch."""
    for name, value in values.items():
        if name == "vision.patches":
            values[name] = value.flatten(2).transpose(1, 2)
        elif name.endswith((".feed_forward_in", ".feed_forward_activation", ".feed_forward_inner_norm", ".feed_forward_out")):
            outer = values[name.rpartition(".")[0] + ".feed_forward_norm"]
            values[name] = value.unflatten(0, outer.shape[:2])

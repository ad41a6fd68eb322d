"""Functions with derivative rules of their own, rewritten with their rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

# `(fn) -> fn`, rewritten when it is called
Transform = Callable[[Callable[..., Any]], Callable[..., Any]]


def custom_jvp(
    original: Callable[..., Sequence[jax.Array]],
    rewritten: Callable[..., Sequence[jax.Array]],
    transform: Transform,
) -> Callable[..., Sequence[jax.Array]]:
    """`rewritten`, whose derivative is that of `original`: its own rule, rewritten.

    Args:
      original: a function with a JVP rule.
      rewritten: computes the same; is never differentiated.
      transform: rewrites the rule.
    """
    call = jax.custom_jvp(rewritten)

    @call.defjvp
    def rule(primals, tangents):
        return transform(lambda *args: jax.jvp(original, *args))(primals, tangents)

    return call


def custom_vjp(
    original: Callable[..., Sequence[jax.Array]],
    rewritten: Callable[..., Sequence[jax.Array]],
    transform: Transform,
) -> Callable[..., Sequence[jax.Array]]:
    """`rewritten`, whose derivative is that of `original`: its own rule, rewritten.

    `jax.vjp` of the original calls the forward rule at once and the backward rule when its result
    is called, so that both are reached without knowing how JAX stores them.

    Args:
      original: a function with a VJP rule.
      rewritten: computes the same; is never differentiated.
      transform: rewrites both halves of the rule.
    """
    call = jax.custom_vjp(rewritten)

    def forward(*args):
        return transform(lambda *args: jax.vjp(original, *args))(*args)

    def backward(vjp, cotangents):
        return transform(lambda vjp, cotangents: vjp(cotangents))(vjp, cotangents)

    call.defvjp(forward, backward)
    return call

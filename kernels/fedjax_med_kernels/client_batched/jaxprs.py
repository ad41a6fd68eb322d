"""Parts of jaxprs, and how an equation is evaluated as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Var, jaxpr_as_fun


def open_jaxpr(function: Jaxpr | ClosedJaxpr) -> Jaxpr:
    """The jaxpr of a function with or without constants."""
    return function.jaxpr if isinstance(function, ClosedJaxpr) else function


def functions_of(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among the parameters of an equation."""
    for param in eqn.params.values():
        for value in param if isinstance(param, tuple) else (param,):
            if isinstance(value, Jaxpr | ClosedJaxpr):
                yield open_jaxpr(value)


def outvars_of(eqn: JaxprEqn) -> list[Var]:
    """The results of an equation that somebody reads."""
    return [v for v in eqn.outvars if not isinstance(v, DropVar)]


def type_of(v: Any) -> Any:
    """Shape, dtype and weak type of a variable or literal that is an array."""
    return v.aval


def scope_of(eqn: JaxprEqn) -> str:
    """Names of the scopes around an equation, separated by slashes."""
    return str(eqn.source_info.name_stack)


def as_function(eqn: JaxprEqn, jaxpr: Jaxpr) -> Callable[..., Sequence[Any]]:
    """An equation of `jaxpr` as a function of its operands that gives `outvars_of(eqn)`.

    As a jaxpr of this one equation, it is JAX that knows how to evaluate it.
    """
    invars = list(dict.fromkeys(v for v in eqn.invars if isinstance(v, Var)))
    alone = jaxpr.replace(
        constvars=[], invars=invars, outvars=outvars_of(eqn), eqns=[eqn], effects=eqn.effects
    )
    fn = jaxpr_as_fun(ClosedJaxpr(alone, ()))

    def call(*operands: Any) -> Sequence[Any]:
        values = {v: x for v, x in zip(eqn.invars, operands, strict=True) if isinstance(v, Var)}
        return fn(*(values[v] for v in invars))

    return call


@contextlib.contextmanager
def context_of(eqn: JaxprEqn) -> Iterator[None]:
    """What is traced inside gets the scopes, source line and metadata of an equation."""
    names = source_info_util.current_name_stack() + eqn.source_info.name_stack
    with (
        source_info_util.user_context(eqn.source_info.traceback, name_stack=names),
        eqn.ctx.manager,
    ):
        yield

"""What there is to replace in a jaxpr, found before anything is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn
from jax.extend.core import primitives as p

from fedjax_med_kernels.client_batched.jaxprs import functions_of, scope_of
from fedjax_med_kernels.client_batched.operations import TARGETS, Plan, Record, Setting, left, plan

# The functions in these are entered. All of them stay what they are.
_ENTERED = {
    p.jit_p,
    p.closed_call_p,
    p.remat_p,
    p.scan_p,
    p.while_p,
    p.cond_p,
    p.custom_jvp_call_p,
    p.custom_vjp_call_p,
}


class Found(NamedTuple):
    """What was found in a jaxpr, at any depth.

    Attributes:
      records: one for every operation.
      any_replaced: whether any of them is going to be replaced.
    """

    records: list[Record]
    any_replaced: bool


class Survey:
    """Decides about all operations of a jaxpr, and about every jaxpr once.

    Jaxprs and equations are known by identity; they have to live as long as the survey.
    """

    def __init__(self, setting: Setting):
        """Prepares for a function that will run in `setting`."""
        self.setting = setting
        self._plans: dict[int, Plan] = {}
        self._found: dict[int, Found] = {}

    def replacement(self, eqn: JaxprEqn) -> Callable[..., jax.Array] | None:
        """What an equation of a jaxpr that was looked at is replaced by."""
        planned = self._plans.get(id(eqn))
        return None if planned is None else planned.replacement

    def look(self, jaxpr: Jaxpr) -> Found:
        """What there is in a jaxpr."""
        if id(jaxpr) not in self._found:
            found = [self._look_at(eqn) for eqn in jaxpr.eqns]
            records = [record for f in found for record in f.records]
            self._found[id(jaxpr)] = Found(records, any(f.any_replaced for f in found))
        return self._found[id(jaxpr)]

    def _look_at(self, eqn: JaxprEqn) -> Found:
        if eqn.primitive in TARGETS:
            planned = self._plans[id(eqn)] = plan(eqn, self.setting)
            return Found([planned.record], planned.replacement is not None)
        if is_entered(eqn):
            found = [self.look(inner) for inner in functions_of(eqn)]
            records = [record for f in found for record in f.records]
            any_replaced = any(f.any_replaced for f in found)
        else:
            reason = f"it is inside {eqn.primitive.name}, which is not entered"
            inside = [e for inner in functions_of(eqn) for e in _targets(inner)]
            records, any_replaced = [left(e, reason).record for e in inside], False
        return Found([_in_scope(record, scope_of(eqn)) for record in records], any_replaced)


def is_entered(eqn: JaxprEqn) -> bool:
    """Whether the functions in an equation are rewritten."""
    # Mutable references can be no arguments of a function that is traced for itself.
    plain = all(isinstance(v.aval, ShapedArray) for v in eqn.invars)
    return eqn.primitive in _ENTERED and plain


def _targets(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All operations of a jaxpr, at any depth."""
    for eqn in jaxpr.eqns:
        if eqn.primitive in TARGETS:
            yield eqn
        else:
            for inner in functions_of(eqn):
                yield from _targets(inner)


def _in_scope(record: Record, scope: str) -> Record:
    return record._replace(scope="/".join(filter(None, (scope, record.scope))))

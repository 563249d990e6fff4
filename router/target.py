"""An instance as one generation of the policy file sees it: under a backend's name, at a site, a price and a budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.deployment import BackendEntry
from router.device import Strain
from router.errors import BudgetSpent
from router.instance import Instance
from router.purse import Purse
from router.snapshot import TargetView
from router.types import ON_PREMISES, AttemptRecord


@dataclass(frozen=True, slots=True)
class Target:
    """See the module.

    Attributes:
        usd_per_inference, usd_per_byte_out: What its price comes to.
    """

    backend: str
    entry: BackendEntry
    instance: Instance
    purse: Purse | None = None
    usd_per_inference: float = field(init=False)
    usd_per_byte_out: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "usd_per_inference", self.entry.price.usd_per_inference)
        object.__setattr__(self, "usd_per_byte_out", self.entry.price.usd_per_byte_out)

    def charge(self, record: AttemptRecord, payload_bytes: int, inferences: int) -> float:
        """Puts on record what a call costs from the moment it is sent, whatever becomes of it; once more
        where it is sent once more.

        Returns:
            What was charged, in US dollars.

        Raises:
            BudgetSpent: The backend's budget has nothing left.
        """
        if self.purse is not None and self.purse.is_spent:
            raise BudgetSpent(f"{self.backend}: {self.purse.why_spent}.")
        site = self.entry.site
        bytes_out = 0 if site == ON_PREMISES else payload_bytes
        record.site = site
        record.payload_bytes = payload_bytes
        record.bytes_out += bytes_out
        usd = inferences * self.usd_per_inference + bytes_out * self.usd_per_byte_out
        record.cost_usd += usd
        if self.purse is not None:
            self.purse.charge(usd)
        return usd

    def refund(self, record: AttemptRecord, usd: float) -> None:
        """Takes back what a call was charged that never reached the backend."""
        if self.purse is not None:
            self.purse.refund(usd)
        record.cost_usd -= usd

    def view(self, strain: Strain) -> TargetView:
        """What a policy sees of it now, the device being strained like this."""
        instance, purse = self.instance, self.purse
        return TargetView(
            backend=self.backend,
            model=instance.model.name,
            variant=instance.variant.label,
            site=self.entry.site,
            takes_image=instance.variant.takes_image,
            breaker=instance.breaker.state,
            problem=instance.breaker.reason or (purse.why_spent if purse is not None and purse.is_spent else ""),
            retry_at=instance.breaker.next_probe_at,
            latency=instance.latency.prediction,
            in_flight=instance.admission.in_flight,
            waiting=instance.admission.waiting,
            limit=instance.admission.limit.value,
            usd_per_inference=self.usd_per_inference,
            usd_per_byte_out=self.usd_per_byte_out,
            left_usd=None if purse is None else purse.left_usd,
            spent=purse is not None and purse.is_spent,
            strain=strain if instance.backend.on_device else Strain.NORMAL,
        )

"""The entrance of the gate: logging in, staying logged in, and signing the notice. It opens nothing else.

What is told to who is refused is always the same; the ledger has the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, NoReturn

from videostore import telemetry
from videostore.domain.access import approved_until, right_to_see
from videostore.domain.errors import NotLoggedIn, RequestInvalid, SignatureInvalid
from videostore.domain.identity import Fault, History, Identity, judge_proof
from videostore.domain.ledger import Event, Json
from videostore.gate.logins import Login, Logins
from videostore.gate.oidc import Provider
from videostore.gate.rates import Rate
from videostore.gate.rules import Rules
from videostore.ports import Ledger, StaffDirectory

GATE = "gate"
"""Actor of what the gate records of people who are not logged in."""
_MINUTE = timedelta(minutes=1)


class Entrance:
    """Sessions of a gate. Safe to share between threads."""

    def __init__(
        self,
        rules: Rules,
        *,
        staff: StaffDirectory,
        ledger: Ledger,
        logins: Logins,
        notice: Callable[[], str],
        provider: Provider | None = None,
    ) -> None:
        self._rules = rules
        self._staff = staff
        self._ledger = ledger
        self._logins = logins
        self._notice = notice
        self._provider = provider
        self._deciding = Lock()  # one at a time, so that a code serves once
        # Of one name from one address: nobody can lock an officer out by guessing elsewhere.
        self._guesses = Rate(10, _MINUTE)
        self._attempts = Rate(60, _MINUTE)  # of one address, under any name

    def login(self, staff_id: str, password: str, code: str, *, address: str) -> tuple[str, Login]:
        """Return a token for a local account. Raises NotLoggedIn or TooManyRequests."""
        now, guesser = self._rules.now(), f"{address} {staff_id}"
        self._guesses.check(guesser, now=now.timestamp())
        self._attempts.spend(address, now=now.timestamp())
        proof = self._staff.prove(staff_id, password, code, now=now)
        with self._deciding:
            history = self._rules.book().history(proof.login_sha256) if proof else History()
            fault = judge_proof(proof, history)
            if fault is not None or proof is None:
                self._guesses.note(guesser, now=now.timestamp())
                facts = {"login_sha256": proof.login_sha256} if proof else {}
                self._refuse(staff_id if proof else "unknown", fault or Fault.STAFF_UNKNOWN, **facts)
            return self._begin(staff_id, now=now, by="password", step=proof.step)

    # --- by OpenID Connect ---

    @property
    def has_provider(self) -> bool:
        return self._provider is not None

    def begin_browser(self, *, address: str) -> tuple[str, str]:
        """Return where the browser goes, and what it brings back.

        This and the next may raise RequestInvalid and ProviderUnavailable.
        """
        return self._need_provider(address).begin()

    def finish_browser(self, *, state: str, code: str, binding: str) -> tuple[str, Login]:
        """Return a token for who came back from the provider. Raises NotLoggedIn."""
        found = self._need_provider().finish(state=state, code=code, binding=binding)
        return self._enter(found)

    def begin_device(self, *, address: str) -> dict[str, Any]:
        """Return what a person at a terminal is shown."""
        return self._need_provider(address).begin_device()

    def poll_device(self, handle: str) -> tuple[str, Login] | None:
        """Return a token once the person has agreed, None until then."""
        found = self._need_provider().poll_device(handle)
        return None if found is None else self._enter(found)

    def _need_provider(self, address: str | None = None) -> Provider:
        if self._provider is None:
            raise RequestInvalid("this site logs in with password and code", hint="videostore login STAFF_ID")
        if address is not None:
            self._attempts.spend(address, now=self._rules.now().timestamp())
        return self._provider

    def _enter(self, found: Identity | Fault) -> tuple[str, Login]:
        if isinstance(found, Fault):
            self._refuse("unknown", found)
        return self.enter(found)

    def enter(self, identity: Identity) -> tuple[str, Login]:
        """Return a token for who the provider of OpenID Connect says it is. Raises NotLoggedIn."""
        staff_id = self._staff.holder(identity.issuer, identity.subject)
        dossier = self._staff.dossier(staff_id) if staff_id else None
        if staff_id is None or dossier is None:
            self._refuse("unknown", Fault.SUBJECT_UNKNOWN)
        if dossier.staff.suspended:
            self._refuse(staff_id, Fault.SUSPENDED)
        return self._begin(staff_id, now=self._rules.now(), by="oidc", step=None)

    # --- staying ---

    def logout(self, token: str) -> None:
        self._logins.end(token)

    def staff_id(self, token: str) -> str:
        """Return who holds this token.

        Raises NotLoggedIn; and AccessRefused, once, when the approval that the session was begun under has
        ended: the session ends with it.
        """
        now = self._rules.now()
        login = self._logins.find(token, now=now)
        dossier = self._rules.dossier(login.staff_id)
        if dossier is None or dossier.login_sha256 != login.login_sha256:
            self._logins.end_all(login.staff_id)
            raise NotLoggedIn("your login has been changed", hint="videostore login STAFF_ID")
        if login.approved and approved_until(dossier, now=now) is None:
            self._logins.end_all(login.staff_id)
            right = right_to_see(dossier, policy=self._rules.policy(), now=now)
            self._rules.check(login.staff_id, "session", right)
        return login.staff_id

    # --- the notice ---

    def notice(self, staff_id: str) -> dict[str, str]:
        """Return the notice, and what else the person's signature is over."""
        dossier = self._staff.dossier(staff_id)
        assert dossier is not None
        assert dossier.login_sha256 is not None
        policy = self._rules.policy()
        return {
            "staff_id": staff_id,
            "notice": self._notice(),
            "notice_sha256": policy.notice_sha256,
            "login_sha256": dossier.login_sha256,
        }

    def acknowledge(self, staff_id: str, paper: Mapping[str, Any]) -> None:
        """Keep the person's signature under the present notice. Raises SignatureInvalid."""
        notice = self._rules.policy().notice_sha256
        if paper.get("staff_id") != staff_id or paper.get("notice_sha256") != notice:
            raise SignatureInvalid(
                "this is not your acknowledgement of the present notice", hint="videostore acknowledge"
            )
        self._staff.file_acknowledgement(paper)
        self._ledger.append(Event.STAFF_ACKNOWLEDGED, actor=staff_id, body={"notice_sha256": notice})

    # --- pieces ---

    def _begin(self, staff_id: str, *, now: datetime, by: str, step: int | None) -> tuple[str, Login]:
        dossier = self._rules.dossier(staff_id)
        assert dossier is not None
        assert dossier.login_sha256 is not None
        body: dict[str, Json] = {"by": by, "login_sha256": dossier.login_sha256, "step": step}
        self._ledger.append(Event.LOGIN, actor=staff_id, body=body)
        telemetry.GATE_LOGINS.labels(outcome="accepted").inc()
        return self._logins.begin(
            staff_id,
            login_sha256=dossier.login_sha256,
            approved_until=approved_until(dossier, now=now),
            now=now,
        )

    def _refuse(self, staff_id: str, fault: Fault, **facts: Json) -> NoReturn:
        body: dict[str, Json] = {"staff_id": staff_id, "fault": fault.value, **facts}
        self._ledger.append(Event.LOGIN_REFUSED, actor=GATE, body=body)
        telemetry.GATE_LOGINS.labels(outcome="refused").inc()
        raise NotLoggedIn(_WRONG, hint=_NEXT)


_NEXT = "A code works once: wait for the next. After five wrong ones an approver gives a new login."
_WRONG = "you could not be logged in: wrong identifier, password or code"

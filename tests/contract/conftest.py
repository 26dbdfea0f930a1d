"""Every harness, opened once for the whole suite, as a worker opens it once for all its runs."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.cases import Case, ScriptedCase, Stage
from tests.contract.pi_case import PiCase, PiHttpCase

CASES: tuple[Case, ...] = (ScriptedCase(), PiCase(), PiHttpCase())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CASES, ids=lambda case: case.kind)
async def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Give one harness after the other."""
    case: Case = request.param
    async with case.open(tmp_path_factory.mktemp(case.kind)) as stage:
        yield stage

"""What routes ask of the running service."""

from typing import Annotated

from fastapi import Depends, Request

from serving.predictors import Predictors


async def _predictors(request: Request) -> Predictors:  # async: FastAPI would look a plain one up on a thread
    return request.app.state.predictors


Serving = Annotated[Predictors, Depends(_predictors)]

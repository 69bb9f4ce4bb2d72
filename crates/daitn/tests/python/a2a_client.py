"""The unchanged a2a-sdk client against an agent: card, send, stream.

Usage: a2a_client.py AGENT_URL [KEY]. AGENT_URL is the agent's base, below which /.well-known/agent-card.json is found.
Prints one JSON line: the texts that came back by send and by stream.
"""

import asyncio
import json
import sys

import httpx
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.helpers.proto_helpers import new_text_message
from a2a.types import Role, SendMessageRequest


async def ask(card, http, streaming):
    client = ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create(card)
    pieces, n_events = {}, 0
    message = new_text_message("hello through the network", role=Role.ROLE_USER)
    async for event in client.send_message(SendMessageRequest(message=message)):
        n_events += 1
        if event.HasField("artifact_update"):
            update = event.artifact_update
            text = "".join(part.text for part in update.artifact.parts)
            known = pieces.get(update.artifact.artifact_id, "") if update.append else ""
            pieces[update.artifact.artifact_id] = known + text
        if event.HasField("task"):
            for artifact in event.task.artifacts:
                pieces[artifact.artifact_id] = "".join(part.text for part in artifact.parts)
    return {"text": "".join(pieces.values()), "events": n_events}


async def main():
    url = sys.argv[1]
    headers = {"authorization": f"Bearer {sys.argv[2]}"} if len(sys.argv) > 2 else {}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        sent = await ask(card, http, False)
        streamed = await ask(card, http, True)
    print(json.dumps({"name": card.name, "send": sent, "stream": streamed}))


asyncio.run(main())

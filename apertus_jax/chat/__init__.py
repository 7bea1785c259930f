"""Chats: conversations, the two chat templates of Apertus, token ids and a loss weight for each. No jax."""

from apertus_jax.chat.conversation import Conversation
from apertus_jax.chat.encoding import EncodedChat, encode_chats
from apertus_jax.chat.format import ChatFormat
from apertus_jax.chat.jinja_template import chat_template, template_of_vocabulary
from apertus_jax.chat.parsing import MalformedConversation, parse_conversation
from apertus_jax.chat.renderer import Piece, render, rendered_text

__all__ = [
    "ChatFormat",
    "Conversation",
    "EncodedChat",
    "MalformedConversation",
    "Piece",
    "chat_template",
    "encode_chats",
    "parse_conversation",
    "render",
    "rendered_text",
    "template_of_vocabulary",
]

// Where snapshots come from: server-sent events, and the login that they need. It knows nothing of what is in them.

const EVENTS = "/v1/console/events";
const SNAPSHOT = "/v1/console";
const AGAIN_MS = 5000;

// `show(snapshot)`, `ask()` for a login, `say(text)` how the connection is.
export function follow({ show, ask, say }) {
  const source = new EventSource(EVENTS);
  source.onmessage = (event) => {
    show(JSON.parse(event.data));
    say("live");
  };
  source.onerror = () => {
    // The browser comes again by itself, but for an answer that was no stream: what was it?
    say("connection lost");
    if (source.readyState === EventSource.CLOSED) explain({ show, ask, say });
  };
  return source;
}

async function explain(hooks) {
  try {
    const answer = await fetch(SNAPSHOT);
    if (answer.status === 403) {
      hooks.say("logged out");
      hooks.ask();
      return;
    }
    if (answer.ok) {
      // There are too many viewers: this one asks less often.
      hooks.show(await answer.json());
      hooks.say("many look: every few seconds");
    }
  } catch {
    // The supernode is away.
  }
  setTimeout(() => follow(hooks), AGAIN_MS);
}

// Whether the token is right.
export async function login(token) {
  const answer = await fetch("/ui/login", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  return answer.ok;
}

export const logout = () => fetch("/ui/logout", { method: "POST" });

// Where snapshots come from: server-sent events, and the login that they need. It knows nothing of what is in them.

const EVENTS = "/v1/console/events";
const SNAPSHOT = "/v1/console";
const AGAIN_MS = 5000;

// `show(snapshot)`, `ask()` for a login, `say(text)` how the connection is; none of them after close().
export function follow({ show, ask, say }) {
  let source = null;
  let timer = 0;
  let closed = false;

  function open() {
    source = new EventSource(EVENTS);
    source.onmessage = (event) => {
      show(JSON.parse(event.data));
      say("live");
    };
    source.onerror = () => {
      // The browser comes again by itself, but for an answer that was no stream: what was it?
      say("connection lost");
      if (source.readyState === EventSource.CLOSED) explain();
    };
  }

  async function explain() {
    let answer = null;
    let snapshot = null;
    try {
      answer = await fetch(SNAPSHOT);
      // Not refused: there are too many viewers, and this one asks less often.
      snapshot = answer.ok ? await answer.json() : null;
    } catch {
      // The supernode is away.
    }
    if (closed) return;
    if (answer?.status === 403) {
      say("logged out");
      ask();
      return;
    }
    if (snapshot !== null) {
      show(snapshot);
      say("many look: every few seconds");
    }
    timer = setTimeout(open, AGAIN_MS);
  }

  open();
  return {
    close() {
      closed = true;
      clearTimeout(timer);
      source.close();
    },
  };
}

// Whether the token is right.
export async function login(token) {
  const answer = await fetch("/ui/login", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  return answer.ok;
}

export const logout = () => fetch("/ui/logout", { method: "POST" });

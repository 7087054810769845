-- Who may come in: accounts, their one-time login links and their sessions. Only hashes of secrets are kept.

-- name: ensure_admin
INSERT INTO account (name, role) VALUES ('admin', 'admin') ON CONFLICT (name) DO NOTHING RETURNING id

-- name: add_login_link
WITH gone AS (DELETE FROM login_link WHERE expires_at <= now())
INSERT INTO login_link (hash, account_id, expires_at)
SELECT $1::bytea, id, now() + $3::interval FROM account WHERE name = $2::text
RETURNING expires_at

-- name: login_link_good
SELECT EXISTS (SELECT FROM login_link WHERE hash = $1::bytea AND expires_at > now())

-- name: use_login_link
WITH used AS (
    DELETE FROM login_link WHERE hash = $1::bytea AND expires_at > now() RETURNING account_id
), gone AS (
    DELETE FROM session WHERE expires_at <= now()
)
INSERT INTO session (hash, account_id, csrf, expires_at)
SELECT $2::bytea, account_id, $3::text, now() + $4::interval FROM used
RETURNING account_id

-- name: session
SELECT account.name, account.role, session.csrf, session.seen_at < now() - interval '5 minutes' AS stale
FROM session JOIN account ON account.id = session.account_id
WHERE session.hash = $1::bytea AND session.expires_at > now() AND session.seen_at > now() - $2::interval

-- name: session_seen
UPDATE session SET seen_at = now() WHERE hash = $1::bytea

-- name: end_session
DELETE FROM session WHERE hash = $1::bytea

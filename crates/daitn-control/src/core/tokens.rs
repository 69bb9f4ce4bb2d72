//! Join tokens and API keys: made here, shown once, kept as hashes.

use crate::{
    core::{Core, Who, event::RequestId, turn::Turn},
    limits::{KEYS_MAX, TOKEN_USES_MAX, TOKEN_VALID_MS_MAX, TOKENS_MAX},
};
use daitn_messages::{
    control::{Enrolment, JoinToken, relay_pass},
    ids::{ApiKeyId, ArtifactId, EntityKind, OrganisationId, TokenId},
    leaf::LeafKind,
    limits::{NAME_BYTES_MAX, bounded},
    operation::{Answer, CreatedKey, CreatedToken, KeyView, NewKey, NewToken, Principal, Scope, TokenView},
    rejection::{Code, Rejection},
    snapshot::KeyEntry,
    units::UnixMillis,
};
use daitn_store::Family;
use serde::{Deserialize, Serialize};

/// What an API key's text begins with.
const KEY_PREFIX: &str = "daitn_";
/// Random bytes in a secret: 256 bits, so that a plain hash of it is enough.
const SECRET_BYTES: usize = 32;

/// A join token as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) token: TokenId,
    pub(crate) hash: ArtifactId,
    pub(crate) organisation: OrganisationId,
    pub(crate) terminals: Vec<EntityKind>,
    pub(crate) uses_left: u32,
    pub(crate) expires_at: UnixMillis,
    pub(crate) revoked: bool,
}

impl TokenRecord {
    fn view(&self) -> TokenView {
        TokenView {
            token: self.token.clone(),
            organisation: self.organisation.clone(),
            terminals: self.terminals.clone(),
            uses_left: self.uses_left,
            expires_at: self.expires_at,
            revoked: self.revoked,
        }
    }
}

/// An API key as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) key: ApiKeyId,
    pub(crate) hash: ArtifactId,
    pub(crate) organisation: OrganisationId,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) note: String,
    pub(crate) revoked: bool,
}

impl KeyRecord {
    pub(crate) fn entry(&self) -> KeyEntry {
        KeyEntry {
            hash: self.hash,
            principal: Principal {
                key: self.key.clone(),
                organisation: self.organisation.clone(),
                scopes: self.scopes.clone(),
            },
        }
    }

    fn view(&self) -> KeyView {
        KeyView {
            key: self.key.clone(),
            organisation: self.organisation.clone(),
            scopes: self.scopes.clone(),
            note: self.note.clone(),
            revoked: self.revoked,
        }
    }
}

fn invalid(why: &str) -> Rejection {
    Rejection::new(Code::TokenInvalid, format!("the join token is {why}"))
}

impl Core {
    pub(super) fn create_token(&mut self, turn: &mut Turn<'_>, new: NewToken) -> Result<Answer, Rejection> {
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Rejection::too_large(
                "join tokens",
                self.tokens.len() as u64 + 1,
                TOKENS_MAX as u64,
            ));
        }
        let bounded = |name: &str, found: u64, max: u64| {
            if (1..=max).contains(&found) {
                Ok(())
            } else {
                Err(Rejection::out_of_range(name, found as f64, 1.0, max as f64))
            }
        };
        bounded("uses", u64::from(new.uses), u64::from(TOKEN_USES_MAX))?;
        bounded("valid_ms", new.valid_ms, TOKEN_VALID_MS_MAX)?;
        if new.terminals.contains(&EntityKind::Model) {
            return Err(Rejection::malformed(
                "terminals",
                "models are registered by the network, not attached",
            ));
        }
        let token = TokenId::new(turn.now.0, turn.entropy.bytes());
        let secret = turn.entropy.bytes::<SECRET_BYTES>().to_vec();
        let record = TokenRecord {
            token: token.clone(),
            hash: ArtifactId::of(&secret),
            organisation: new.organisation.clone(),
            terminals: new.terminals,
            uses_left: new.uses,
            expires_at: turn.now.plus(new.valid_ms),
            revoked: false,
        };
        turn.batch.put(Family::Tokens, token.as_str(), &record);
        turn.leaf_of(LeafKind::Key, &token, &record, [&record.organisation]);
        let text = JoinToken {
            token: token.clone(),
            secret,
            center: self.config.peer.clone(),
            organisation: new.organisation,
        }
        .to_text();
        let expires_at = record.expires_at;
        self.tokens.insert(token.clone(), record);
        Ok(Answer::Token(CreatedToken {
            token,
            text,
            expires_at,
        }))
    }

    pub(super) fn list_tokens(&self) -> Answer {
        Answer::Tokens(self.tokens.values().map(TokenRecord::view).collect())
    }

    pub(super) fn revoke_token(&mut self, turn: &mut Turn<'_>, token: &TokenId) -> Result<Answer, Rejection> {
        let record = self
            .tokens
            .get_mut(token)
            .ok_or_else(|| Rejection::not_found("join token", token))?;
        if !record.revoked {
            record.revoked = true;
            turn.batch.put(Family::Tokens, token.as_str(), record);
            turn.leaf_of(LeafKind::Key, token, record, [&record.organisation]);
        }
        Ok(Answer::Done {})
    }

    /// Whether this is what the holder of a token that can still be spent shows to the relay.
    pub(super) fn is_relay_pass(&self, pass: &str, now: UnixMillis) -> bool {
        let token = pass.split_once('.').and_then(|(token, _)| token.parse().ok());
        token
            .and_then(|token: TokenId| self.tokens.get(&token))
            .is_some_and(|record| {
                !record.revoked
                    && record.expires_at > now
                    && record.uses_left > 0
                    && relay_pass(&record.token, &record.hash) == pass
            })
    }

    /// A token that can be spent. What is checked is the secret first, so that nothing is told to who guesses.
    pub(super) fn valid_token(
        &self,
        now: UnixMillis,
        enrolment: &Enrolment,
    ) -> Result<&TokenRecord, Rejection> {
        let hash = ArtifactId::of(&enrolment.secret);
        let record = self
            .tokens
            .get(&enrolment.token)
            .filter(|record| record.hash == hash)
            .ok_or_else(|| invalid("unknown here, or its secret is wrong"))?;
        if record.revoked {
            return Err(invalid("revoked"));
        }
        if record.expires_at <= now {
            return Err(invalid("expired"));
        }
        if record.uses_left == 0 {
            return Err(invalid("spent: it was used as often as it allows"));
        }
        Ok(record)
    }

    /// Spends one use of a token.
    pub(super) fn spend_token(
        &mut self,
        turn: &mut Turn<'_>,
        enrolment: &Enrolment,
    ) -> Result<TokenRecord, Rejection> {
        let token = self.valid_token(turn.now, enrolment)?.token.clone();
        let record = self.tokens.get_mut(&token).expect("it was looked up above");
        record.uses_left -= 1;
        turn.batch.put(Family::Tokens, record.token.as_str(), record);
        Ok(record.clone())
    }

    pub(super) fn create_key(&mut self, turn: &mut Turn<'_>, new: NewKey) -> Result<Answer, Rejection> {
        if self.keys.len() >= KEYS_MAX {
            return Err(Rejection::too_large(
                "API keys",
                self.keys.len() as u64 + 1,
                KEYS_MAX as u64,
            ));
        }
        if new.scopes.is_empty() {
            return Err(Rejection::malformed(
                "scopes",
                "a key without a scope could do nothing",
            ));
        }
        bounded("note", &new.note, NAME_BYTES_MAX)?;
        let key = ApiKeyId::new(turn.now.0, turn.entropy.bytes());
        let digits = data_encoding::BASE32_NOPAD.encode(&turn.entropy.bytes::<SECRET_BYTES>());
        let secret = format!("{KEY_PREFIX}{}", digits.to_ascii_lowercase());
        self.put_key(turn, key.clone(), &secret, new);
        Ok(Answer::Key(CreatedKey { key, secret }))
    }

    fn put_key(&mut self, turn: &mut Turn<'_>, key: ApiKeyId, secret: &str, new: NewKey) {
        let mut scopes = new.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        let record = KeyRecord {
            key: key.clone(),
            hash: ArtifactId::of(secret.as_bytes()),
            organisation: new.organisation,
            scopes,
            note: new.note,
            revoked: false,
        };
        turn.batch.put(Family::Keys, key.as_str(), &record);
        turn.leaf_of(LeafKind::Key, &key, &record, [&record.organisation]);
        self.keys.insert(key, record);
        self.snapshot.changed();
    }

    pub(super) fn list_keys(&self) -> Answer {
        Answer::Keys(self.keys.values().map(KeyRecord::view).collect())
    }

    pub(super) fn revoke_key(
        &mut self,
        turn: &mut Turn<'_>,
        who: &Who,
        key: &ApiKeyId,
    ) -> Result<Answer, Rejection> {
        let is_last_admin = |core: &Self| {
            let others = core.keys.values().filter(|k| !k.revoked && k.key != *key);
            !others.into_iter().any(|k| k.scopes.contains(&Scope::Admin))
        };
        if !self.keys.contains_key(key) {
            return Err(Rejection::not_found("API key", key));
        }
        if *key == who.key && is_last_admin(self) {
            return Err(
                Rejection::new(Code::Conflict, "this is the only key that can operate the domain")
                    .with_hint("Make another key with the scope admin first."),
            );
        }
        let record = self.keys.get_mut(key).expect("it was looked up above");
        if !record.revoked {
            record.revoked = true;
            turn.batch.put(Family::Keys, key.as_str(), record);
            turn.leaf_of(LeafKind::Key, key, record, [&record.organisation]);
            self.snapshot.changed();
        }
        Ok(Answer::Done {})
    }

    /// Makes the first key that can operate the domain, unless one is in force. Its text is made by the caller, who
    /// alone may see it.
    pub(super) fn bootstrap_key(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        organisation: OrganisationId,
    ) {
        let exists = self
            .keys
            .values()
            .any(|k| !k.revoked && k.scopes.contains(&Scope::Admin));
        if exists {
            let rejection =
                Rejection::new(Code::Conflict, "a key that can operate the domain exists already")
                    .with_hint("Use it, or make another with it.");
            turn.reply(request, Err(rejection));
            return;
        }
        let new = NewKey {
            organisation,
            scopes: Scope::ALL.to_vec(),
            note: "the first key, made when the control center was set up".to_owned(),
        };
        let result = self.create_key(turn, new);
        turn.reply(request, result);
    }

    /// Forgets tokens that nobody can use any more.
    pub(super) fn forget_tokens(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.tokens.retain(|token, record| {
            let keep = record.expires_at > now;
            if !keep {
                turn.batch.delete(Family::Tokens, token.as_str());
            }
            keep
        });
    }
}

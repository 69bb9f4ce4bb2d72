//! Full text over what descriptors say: in memory, rebuilt at each start, owned by one thread that writes it.
//!
//! What is found here decides what a person sees first in a list, and nothing else: no plan and no route reads it.

use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::EntityId,
};
use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
};
use tantivy::{
    Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term,
    collector::TopDocs,
    query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery},
    schema::{Field, IndexRecordOption, STORED, STRING, Schema, TEXT, Value},
    tokenizer::TokenStream,
};

/// Changes that wait to be indexed; the center waits when there are more.
const QUEUE_MAX: usize = 4 * 1024;
/// Memory for changes between two commits: the least that the library takes.
const WRITER_BYTES: usize = 15_000_000;
/// Words of a query that count.
const WORDS_MAX: usize = 16;
/// Answers of a query, before filters and policy.
pub(crate) const TEXT_HITS_MAX: usize = 10_000;

enum Change {
    Put(Arc<Descriptor>),
    Remove(EntityId),
    /// Everything before is to be findable when this is answered.
    #[cfg(test)]
    Flush(mpsc::Sender<()>),
}

#[derive(Debug, Clone, Copy)]
struct Fields {
    id: Field,
    name: Field,
    title: Field,
    tags: Field,
    body: Field,
}

/// The index; clones are the same.
#[derive(Clone)]
pub(crate) struct TextIndex {
    changes: mpsc::SyncSender<Change>,
    reader: IndexReader,
    index: Index,
    fields: Fields,
}

impl std::fmt::Debug for TextIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TextIndex")
    }
}

impl TextIndex {
    /// An empty index, and the thread that writes it, which ends when the index is dropped.
    pub(crate) fn start() -> Result<(Self, JoinHandle<()>), TantivyError> {
        let mut schema = Schema::builder();
        let fields = Fields {
            id: schema.add_text_field("id", STRING | STORED),
            name: schema.add_text_field("name", TEXT),
            title: schema.add_text_field("title", TEXT),
            tags: schema.add_text_field("tags", TEXT),
            body: schema.add_text_field("body", TEXT),
        };
        let index = Index::create_in_ram(schema.build());
        let writer: IndexWriter = index.writer_with_num_threads(1, WRITER_BYTES)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?;
        let (changes, queue) = mpsc::sync_channel(QUEUE_MAX);
        let seen = reader.clone();
        let thread = std::thread::Builder::new().name("daitn-text".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = write(writer, &seen, fields, &queue) {
                tracing::error!(%error, "the text index stopped; search by text finds nothing new until a restart");
            }
        })?;
        let index = Self {
            changes,
            reader,
            index,
            fields,
        };
        Ok((index, thread))
    }

    /// Makes a descriptor findable soon.
    pub(crate) fn put(&self, descriptor: Arc<Descriptor>) {
        self.change(Change::Put(descriptor));
    }

    /// Makes an entity unfindable soon.
    pub(crate) fn remove(&self, entity: EntityId) {
        self.change(Change::Remove(entity));
    }

    fn change(&self, change: Change) {
        if self.changes.send(change).is_err() {
            tracing::debug!("the text index has stopped");
        }
    }

    /// Entities of which every word of the text is somewhere in name, title, tags or description, best first. Blocks
    /// for some milliseconds.
    pub(crate) fn search(&self, text: &str) -> Result<Vec<(EntityId, f32)>, TantivyError> {
        let Some(query) = self.query(text)? else {
            return Ok(Vec::new());
        };
        let searcher = self.reader.searcher();
        let top = searcher.search(&query, &TopDocs::with_limit(TEXT_HITS_MAX).order_by_score())?;
        let mut hits = Vec::with_capacity(top.len());
        for (score, address) in top {
            let document: TantivyDocument = searcher.doc(address)?;
            let id = document
                .get_first(self.fields.id)
                .and_then(|value| value.as_str().map(str::to_owned));
            hits.extend(id.and_then(|id| id.parse().ok()).map(|entity| (entity, score)));
        }
        Ok(hits)
    }

    fn query(&self, text: &str) -> Result<Option<BooleanQuery>, TantivyError> {
        let mut tokenizer = self.index.tokenizer_for_field(self.fields.body)?;
        let mut stream = tokenizer.token_stream(text);
        let mut words: Vec<String> = Vec::new();
        while words.len() < WORDS_MAX && stream.advance() {
            words.push(stream.token().text.clone());
        }
        if words.is_empty() {
            return Ok(None);
        }
        let Fields {
            name,
            title,
            tags,
            body,
            ..
        } = self.fields;
        let anywhere = |word: String| -> Box<dyn Query> {
            let weighted = [(name, 4.0), (title, 3.0), (tags, 2.0), (body, 1.0)].map(|(field, weight)| {
                let term = TermQuery::new(Term::from_field_text(field, &word), IndexRecordOption::WithFreqs);
                let boosted: Box<dyn Query> = Box::new(BoostQuery::new(Box::new(term), weight));
                (Occur::Should, boosted)
            });
            Box::new(BooleanQuery::new(weighted.into()))
        };
        let all = words.into_iter().map(|word| (Occur::Must, anywhere(word)));
        Ok(Some(BooleanQuery::new(all.collect())))
    }

    #[cfg(test)]
    fn flush(&self) {
        let (done, flushed) = mpsc::channel();
        self.change(Change::Flush(done));
        flushed.recv().unwrap();
    }
}

fn write(
    mut writer: IndexWriter,
    reader: &IndexReader,
    fields: Fields,
    queue: &mpsc::Receiver<Change>,
) -> Result<(), TantivyError> {
    // As many as wait are committed at once: a commit costs the same for one as for a thousand.
    while let Ok(first) = queue.recv() {
        #[cfg(test)]
        let mut flushed = Vec::new();
        let mut n_changes = 0;
        for change in std::iter::once(first).chain(queue.try_iter()).take(QUEUE_MAX) {
            n_changes += 1;
            match change {
                Change::Put(descriptor) => {
                    let id = descriptor.entity.to_string();
                    writer.delete_term(Term::from_field_text(fields.id, &id));
                    writer.add_document(document(&descriptor, fields))?;
                }
                Change::Remove(entity) => {
                    writer.delete_term(Term::from_field_text(fields.id, &entity.to_string()));
                }
                #[cfg(test)]
                Change::Flush(done) => flushed.push(done),
            }
        }
        writer.commit()?;
        reader.reload()?;
        tracing::trace!(n_changes, "text index committed");
        #[cfg(test)]
        flushed.into_iter().for_each(|done| done.send(()).unwrap());
    }
    Ok(())
}

fn document(descriptor: &Descriptor, fields: Fields) -> TantivyDocument {
    let mut document = TantivyDocument::new();
    let entity = &descriptor.entity;
    document.add_text(fields.id, entity.to_string());
    document.add_text(fields.name, entity.name.as_str());
    document.add_text(fields.title, &descriptor.title);
    document.add_text(fields.body, &descriptor.description);
    document.add_text(fields.tags, entity.kind.as_str());
    document.add_text(fields.tags, entity.organisation.as_str());
    for tag in tags(&descriptor.body) {
        document.add_text(fields.tags, tag);
    }
    document
}

/// Words that an entity is found by besides its title and description: columns, target, skills.
fn tags(body: &Body) -> Vec<&str> {
    match body {
        Body::Dataset(dataset) => {
            let columns = dataset.features.iter().map(String::as_str);
            columns
                .chain([
                    dataset.target.as_str(),
                    dataset.creator.as_str(),
                    dataset.usage.as_str(),
                ])
                .collect()
        }
        Body::Verifier(verifier) => verifier
            .features
            .iter()
            .map(String::as_str)
            .chain([verifier.target.as_str()])
            .collect(),
        Body::Model(model) => vec![model.spec.target.as_str()],
        Body::Agent(agent) => agent
            .skills
            .iter()
            .flat_map(|skill| {
                [skill.id.as_str(), skill.name.as_str()]
                    .into_iter()
                    .chain(skill.tags.iter().map(String::as_str))
            })
            .collect(),
        Body::Compute(_) | Body::ModelHost(_) | Body::Aggregator(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::{descriptor::AggregatorBody, ids::NodeId, units::UnixMillis};

    fn descriptor(entity: &str, title: &str, description: &str) -> Arc<Descriptor> {
        Arc::new(Descriptor {
            entity: entity.parse().unwrap(),
            version: 1,
            node: NodeId([1; 32]),
            title: title.to_owned(),
            description: description.to_owned(),
            jurisdiction: "DE".to_owned(),
            issued_at: UnixMillis(0),
            body: Body::Aggregator(AggregatorBody {
                storage_bytes: 0,
                price_micros_per_gb: 0,
            }),
        })
    }

    fn found(index: &TextIndex, text: &str) -> Vec<String> {
        index.flush();
        index
            .search(text)
            .unwrap()
            .into_iter()
            .map(|(entity, _)| entity.to_string())
            .collect()
    }

    #[test]
    fn every_word_must_be_somewhere_and_a_name_weighs_more_than_a_description() {
        let (index, _thread) = TextIndex::start().unwrap();
        index.put(descriptor(
            "aggregator:north/relay",
            "Frozen lake",
            "digits of the north",
        ));
        index.put(descriptor("aggregator:north/digits", "Open water", "a lake"));
        index.put(descriptor("aggregator:south/other", "Desert", "sand"));
        assert_eq!(
            found(&index, "DIGITS"),
            ["aggregator:north/digits", "aggregator:north/relay"]
        );
        assert_eq!(
            found(&index, "lake north"),
            ["aggregator:north/relay", "aggregator:north/digits"]
        );
        assert_eq!(found(&index, "lake sand"), [""; 0]);
        index.put(descriptor(
            "aggregator:north/digits",
            "Renamed",
            "nothing of the kind",
        ));
        index.remove("aggregator:north/relay".parse().unwrap());
        assert_eq!(found(&index, "lake"), [""; 0]);
        assert_eq!(found(&index, "renamed"), ["aggregator:north/digits"]);
    }

    #[test]
    fn a_query_is_words_and_never_a_language() {
        let (index, _thread) = TextIndex::start().unwrap();
        index.put(descriptor("aggregator:north/a", "plain", ""));
        for hostile in [
            "*:*",
            "title:[* TO *]",
            "(((((((",
            "\"",
            "plain AND",
            "a".repeat(100_000).as_str(),
            "\u{0}",
        ] {
            index.flush();
            index.search(hostile).unwrap();
        }
        assert_eq!(found(&index, ""), [""; 0]);
        assert_eq!(found(&index, "+plain~"), ["aggregator:north/a"]);
    }
}

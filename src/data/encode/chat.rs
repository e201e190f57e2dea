//! Conversations, of which the assistant's part is learned.

use super::Encoder;
use crate::data::errors;
use crate::data::example::{IGNORED, Sequence};
use crate::data::row::{Fault, Row};
use crate::data::task::Role;
use crate::data::template::{Rendered, Template};
use crate::data::value::Value;
use std::ops::Range;

impl Encoder {
    /// The tokens of a conversation, of which those count that have a part in what the assistant
    /// says. Where that is, the template says by marks. Without marks it is what comes behind the
    /// text of the messages before, opened for an answer (`add_generation_prompt`), up to the end of
    /// the text with the answer.
    pub(super) fn chat(&self, row: &Row) -> Result<Sequence, Fault> {
        let template = match &self.texts.chat {
            None => return Err(errors::no_template()),
            Some(Ok(template)) => template,
            Some(Err(diagnostic)) => {
                return Err(Fault::new((**diagnostic).clone(), "needed for this row"));
            }
        };
        let messages = self.list(row, Role::Messages, "a list of messages")?;
        let answers = self.answers(&messages)?;
        let all = self.render(template, row, &messages, false)?;
        let spoken = match template.has_marks() {
            true => all.marked.clone(),
            false => self.spoken(template, row, &messages, &answers, &all.text)?,
        };
        let encoding = self.tokens(&all.text, false)?;
        let counts = |(start, end): (usize, usize)| {
            let behind = spoken.partition_point(|part| part.end <= start);
            spoken.get(behind).is_some_and(|part| part.start < end)
        };
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        let label = |(id, place): (&u32, &(usize, usize))| match counts(*place) {
            true => *id as i32,
            false => IGNORED,
        };
        Ok(Sequence {
            labels: tokens.map(label).collect(),
            ids: encoding.get_ids().to_vec(),
            types: Vec::new(),
        })
    }

    /// Which messages are the assistant's.
    fn answers(&self, messages: &[Value]) -> Result<Vec<usize>, Fault> {
        let column = self.column(Role::Messages);
        let mut answers = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            match message.field("role") {
                Some(Value::Text(role)) if role == "assistant" => answers.push(at),
                Some(Value::Text(_)) => {}
                _ => return Err(errors::no_message(column, at + 1)),
            }
        }
        match answers.is_empty() {
            true => Err(errors::no_answer(column)),
            false => Ok(answers),
        }
    }

    /// Where the answers lie in the text of all messages.
    fn spoken(
        &self,
        template: &Template,
        row: &Row,
        messages: &[Value],
        answers: &[usize],
        text: &str,
    ) -> Result<Vec<Range<usize>>, Fault> {
        let mut spoken = Vec::new();
        for answer in answers {
            let before = self.render(template, row, &messages[..*answer], true)?.text;
            let with = match answer + 1 == messages.len() {
                true => text.to_owned(),
                false => {
                    self.render(template, row, &messages[..=*answer], false)?
                        .text
                }
            };
            if !with.starts_with(&before) || !text.starts_with(&with) {
                return Err(errors::answers_not_found(template.name(), answer + 1));
            }
            spoken.push(before.len()..with.len());
        }
        Ok(spoken)
    }

    fn render(
        &self,
        template: &Template,
        row: &Row,
        messages: &[Value],
        opened: bool,
    ) -> Result<Rendered, Fault> {
        let messages = Value::List(messages.to_vec());
        let tools = row.get(self.column(Role::Tools)).unwrap_or(&Value::Null);
        let opened = Value::Bool(opened);
        let mut variables = vec![
            ("messages", &messages),
            ("tools", tools),
            ("add_generation_prompt", &opened),
        ];
        let special = self.variables.iter();
        variables.extend(special.map(|(name, value)| (name.as_str(), value)));
        template.render(&variables)
    }
}

//! `peftc graph`: a module's surroundings before and after an adapter.

use super::errors;
use super::frame::{Context, Outcome, Payload};
use super::model_args::{ModelArgs, parse_setting};
use crate::diag::{Reported, Sink};
use crate::driver::{
    Item, ItemKind, Loaded, ModelOptions, Neighborhood, Origin, Picture, PlanOptions, Planned,
    Reach, Session,
};
use crate::files;
use crate::report::{self, Block, Drawing, Line, Role, Side};
use clap::ValueEnum;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Draw the graph around a module, before and after an adapter
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec; without --model, the ONNX model to draw as it is
    spec: PathBuf,
    /// The ONNX model; its weights need not be there
    #[arg(long, value_name = "ONNX")]
    model: Option<PathBuf>,
    /// The adapter to draw; without it the first that adapts the module
    #[arg(long, value_name = "NAME", requires = "model")]
    adapter: Option<String>,
    /// The module, by its path or a pattern
    #[arg(long, value_name = "PATTERN")]
    site: String,
    /// How to draw; without it as the name of the output file says, else text
    #[arg(long = "as", value_name = "KIND", value_enum)]
    kind: Option<Kind>,
    /// Where to write the drawing; stdout without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many nodes to draw above and below the module
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    hops: usize,
    /// A hyper-parameter that wins over the spec: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting, requires = "model")]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    recovery: ModelArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Text,
    Dot,
    Svg,
}

impl Kind {
    fn of(args: &Args) -> Kind {
        let name = args.output.as_ref().and_then(|path| path.extension());
        let by_name = match name.and_then(|name| name.to_str()) {
            Some("svg") => Kind::Svg,
            Some("dot" | "gv") => Kind::Dot,
            _ => Kind::Text,
        };
        args.kind.unwrap_or(by_name)
    }

    fn draw(self, drawing: &Drawing) -> String {
        match self {
            Kind::Text => report::text(drawing),
            Kind::Dot => report::dot(drawing),
            Kind::Svg => report::svg(drawing),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Dot => "dot",
            Kind::Svg => "svg",
        }
    }
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let (loaded, planned) = load(args, &mut session)?;
    let reach = Reach { hops: args.hops };
    let found = session.neighborhood(&loaded, planned.as_ref(), &args.site, reach)?;
    let drawing = drawing(&loaded, planned.as_ref(), &found);
    let kind = Kind::of(args);
    let text = kind.draw(&drawing);
    if found.matched > 1 {
        cx.terminal.say(&format!(
            "`{}` names {} sites; drawn is `{}`",
            args.site, found.matched, found.path
        ));
    }
    let mut json = json!({
        "module": found.path,
        "matched": found.matched,
        "methods": found.methods,
        "kind": kind.name(),
    });
    match &args.output {
        None => {
            json["drawing"] = text.as_str().into();
            Ok(Payload::new(text, json))
        }
        Some(path) => {
            write(path, &text, &mut cx.sink)?;
            json["file"] = path.display().to_string().into();
            Ok(Payload::new(format!("wrote {}\n", path.display()), json))
        }
    }
}

fn write(path: &Path, text: &str, sink: &mut Sink) -> Result<(), Reported> {
    files::write(path, sink, |out| out.write_all(text.as_bytes()))
}

/// The model, and the plan of the wanted adapter if there is a spec.
fn load(args: &Args, session: &mut Session<'_>) -> Result<(Loaded, Option<Planned>), Reported> {
    let options = ModelOptions {
        without_data: true,
        roles: true,
        ..args.recovery.options()
    };
    let Some(model) = &args.model else {
        if args.spec.extension().is_some_and(|name| name == "peft") {
            return Err(session.sink.emit(errors::no_model(&args.spec)));
        }
        return Ok((session.model(&args.spec, &options)?, None));
    };
    let spec = session.spec(&args.spec)?;
    let wanted: Vec<String> = args.adapter.iter().cloned().collect();
    let adapters = session.adapters(&spec, &wanted)?;
    let loaded = session.model(model, &options)?;
    let options = PlanOptions {
        settings: args.settings.clone(),
    };
    let mut plans = Vec::new();
    for adapter in adapters {
        plans.push(session.plan(&spec, adapter, &loaded, &options)?);
    }
    let first = plans.iter().position(|(loaded, planned)| {
        let mut sites = planned.plan.sites.iter();
        sites.any(|planned| loaded.modules.sites[planned.site].path == args.site)
    });
    let (loaded, planned) = plans.swap_remove(first.unwrap_or(0));
    Ok((loaded.into_owned(), Some(planned)))
}

fn drawing(loaded: &Loaded, planned: Option<&Planned>, found: &Neighborhood) -> Drawing {
    let mut sides = vec![side("base".to_owned(), &found.base)];
    if let (Some(planned), Some(adapted)) = (planned, &found.adapted) {
        let adapter = &planned.plan.adapter;
        let caption = if found.methods.is_empty() {
            format!("adapter {adapter} leaves it as it is")
        } else {
            format!("adapted by {adapter} with {}", found.methods.join(", "))
        };
        sides.push(side(caption, adapted));
    }
    Drawing {
        title: format!("{} in {}", found.path, loaded.model.name),
        sides,
    }
}

fn side(caption: String, picture: &Picture) -> Side {
    Side {
        caption,
        blocks: picture.items.iter().map(block).collect(),
        wires: picture.wires.clone(),
    }
}

fn block(item: &Item) -> Block {
    let role = match item.kind {
        ItemKind::Node => Role::Node,
        ItemKind::Site => Role::Site,
        ItemKind::Inserted => Role::Inserted,
        ItemKind::End => Role::End,
    };
    let line = |(text, origin): &(String, Origin)| Line {
        text: text.clone(),
        is_new: *origin == Origin::Adapter,
    };
    Block {
        role,
        title: item.title.clone(),
        lines: item.lines.iter().map(line).collect(),
        results: item.results.clone(),
        text: item.text.clone(),
    }
}

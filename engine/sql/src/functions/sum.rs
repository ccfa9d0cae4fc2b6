//! `sum` of whole numbers that does not wrap around: what would leave the type is an error. Everything else is summed as
//! `DataFusion` does.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

pub(super) fn checked_sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(CheckedSum(Sum::new())))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum(Sum);

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match (arguments.is_distinct, arguments.return_field.data_type()) {
            (false, DataType::Int64) => Ok(Box::new(Whole::<Int64Type>::default())),
            (false, DataType::UInt64) => Ok(Box::new(Whole::<UInt64Type>::default())),
            (true, DataType::Int64 | DataType::UInt64) => Ok(Box::new(Distinct(self.0.accumulator(arguments)?))),
            _ => self.0.accumulator(arguments),
        }
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match (arguments.is_distinct, arguments.return_field.data_type()) {
            (false, DataType::Int64 | DataType::UInt64) => self.accumulator(arguments),
            (true, DataType::Int64) => Ok(Box::new(Distinct(self.0.create_sliding_accumulator(arguments)?))),
            _ => self.0.create_sliding_accumulator(arguments),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if arguments.is_distinct || !arguments.return_type().is_integer() {
            return self.0.state_fields(arguments);
        }
        Ok(vec![Arc::new(Field::new(format!("{}[sum]", arguments.name), DataType::Decimal128(38, 0), true))])
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match arguments.return_field.data_type() {
            DataType::Int64 => Ok(Box::new(Sums::<Int64Type>::default())),
            DataType::UInt64 => Ok(Box::new(Sums::<UInt64Type>::default())),
            _ => self.0.create_groups_accumulator(arguments),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

fn leaves<T: ArrowPrimitiveType>() -> DataFusionError {
    DataFusionError::Execution(format!("sum: the result is out of the range of {}", T::DATA_TYPE))
}

/// Sums of many groups. They are kept wide enough for as many values as there can be, so that only what comes out must fit:
/// then it does not matter in which order values come, and in which parts.
struct Sums<T: ArrowPrimitiveType> {
    totals: Vec<i128>,
    seen: Vec<bool>,
    kind: PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> Default for Sums<T> {
    fn default() -> Self {
        Self { totals: Vec::new(), seen: Vec::new(), kind: PhantomData }
    }
}

impl<T: ArrowPrimitiveType> Sums<T> {
    fn add<P: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<P>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) where
        P::Native: Into<i128>,
    {
        self.totals.resize(count, 0);
        self.seen.resize(count, false);
        let selected = selected(values.nulls(), filter);
        for (row, (group, value)) in groups.iter().zip(values.values().iter()).enumerate() {
            if selected.as_ref().is_none_or(|selected| selected.is_valid(row)) {
                self.totals[*group] += (*value).into();
                self.seen[*group] = true;
            }
        }
    }

    fn take(&mut self, emit: EmitTo) -> (Vec<i128>, Option<NullBuffer>) {
        let totals = emit.take_needed(&mut self.totals);
        let seen = emit.take_needed(&mut self.seen);
        (totals, seen.contains(&false).then(|| NullBuffer::from(seen)))
    }
}

fn state_of(totals: Vec<i128>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::new(totals.into(), nulls).with_precision_and_scale(38, 0)?))
}

/// The rows that count: neither null nor filtered out. `None` if all do.
fn selected(nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let filter = filter.map(|filter| {
        let kept = NullBuffer::new(filter.values().clone());
        NullBuffer::union(Some(&kept), filter.nulls()).unwrap_or(kept)
    });
    NullBuffer::union(nulls, filter.as_ref())
}

impl<T: ArrowPrimitiveType> GroupsAccumulator for Sums<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.add(values[0].as_primitive::<T>(), groups, filter, count);
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (totals, nulls) = self.take(emit);
        let narrow = |total: i128| T::Native::try_from(total).map_err(|_| leaves::<T>());
        let values = totals.into_iter().map(narrow).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (totals, nulls) = self.take(emit);
        Ok(vec![state_of(totals, nulls)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.add(values[0].as_primitive::<Decimal128Type>(), groups, None, count);
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let wide = values.values().iter().map(|value| (*value).into()).collect();
        Ok(vec![state_of(wide, selected(values.nulls(), filter))?])
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}

/// One sum, from which rows can be taken off again.
struct Whole<T: ArrowPrimitiveType> {
    sum: i128,
    count: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> std::fmt::Debug for Whole<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.sum, self.count)
    }
}

impl<T: ArrowPrimitiveType> Default for Whole<T> {
    fn default() -> Self {
        Self { sum: 0, count: 0, kind: PhantomData }
    }
}

impl<T: ArrowPrimitiveType> Whole<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn change(&mut self, values: &ArrayRef, sign: i128) {
        let values = values.as_primitive::<T>();
        let count = (values.len() - values.null_count()) as u64;
        self.count = if sign > 0 { self.count + count } else { self.count.saturating_sub(count) };
        self.sum += sign * values.iter().flatten().map(Into::<i128>::into).sum::<i128>();
    }

    fn value(&self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&T::DATA_TYPE);
        }
        let sum = T::Native::try_from(self.sum).map_err(|_| leaves::<T>())?;
        ScalarValue::try_from_array(&PrimitiveArray::<T>::from_value(sum, 1), 0)
    }
}

impl<T: ArrowPrimitiveType> Accumulator for Whole<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(&values[0], 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(&values[0], -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128((self.count > 0).then_some(self.sum), 38, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states[0].as_primitive::<Decimal128Type>();
        self.count += (states.len() - states.null_count()) as u64;
        self.sum += states.iter().flatten().sum::<i128>();
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// The sum of different values: the library collects them, and what they come to is added up here.
#[derive(Debug)]
struct Distinct(Box<dyn Accumulator>);

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.0.state()?;
        let Some(ScalarValue::List(list)) = state.first() else { return exec_err!("sum: there are no values") };
        let values = list.values();
        match values.data_type() {
            DataType::UInt64 => total::<UInt64Type>(values),
            _ => total::<Int64Type>(values),
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

fn total<T: ArrowPrimitiveType>(values: &ArrayRef) -> Result<ScalarValue>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    let mut whole = Whole::<T>::default();
    whole.change(values, 1);
    whole.value()
}

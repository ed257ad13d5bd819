//! [`LambdaCallback`]: a callback made of closures.
//!
//! Deliberately absent: closures that wait, which would each have to box their future; such a callback is a type of its
//! own.

use super::callback::{Callback, Hook, Run, nothing};

type Function<'f> = Option<Box<dyn FnMut(&mut Run<'_>) + 'f>>;

macro_rules! closures {
    ($($hook:ident)*) => {
        /// A callback made of closures that need not wait, one for any of the hooks of [`Callback`].
        ///
        /// ```
        /// use wengert::callbacks::LambdaCallback;
        ///
        /// let print = LambdaCallback::new().on_epoch_end(|run| println!("{}: {}", run.epoch, run.scores));
        /// ```
        #[derive(Default)]
        pub struct LambdaCallback<'f> {
            $($hook: Function<'f>,)*
        }

        impl<'f> LambdaCallback<'f> {
            /// A callback that does nothing yet.
            pub fn new() -> LambdaCallback<'f> {
                LambdaCallback::default()
            }

            $(
            #[doc = concat!("Called at [`", stringify!($hook), "`](Callback::", stringify!($hook), ").")]
            pub fn $hook(mut self, f: impl FnMut(&mut Run<'_>) + 'f) -> Self {
                self.$hook = Some(Box::new(f));
                self
            }
            )*
        }

        impl Callback for LambdaCallback<'_> {
            $(fn $hook<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
                if let Some(function) = &mut self.$hook {
                    function(run);
                }
                nothing()
            })*
        }
    };
}

closures! {
    on_train_begin on_train_end on_epoch_begin on_epoch_end on_batch_begin on_batch_end
    on_test_begin on_test_end on_test_batch_begin on_test_batch_end
    on_predict_begin on_predict_end on_predict_batch_begin on_predict_batch_end
}
